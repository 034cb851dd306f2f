//! Values that may have one of several forms: which one was meant, and what is wrong with it.

use super::diagnostic::{alternatives, suggest};
use super::params::{Mistake, Walk};
use super::shape::Variant;
use super::tree::{Content, Entry, Item};
use serde_json::Value;

impl<'s> Walk<'s, '_> {
    /// Checks that one of the options fits; if none does, reports what is wrong with the one that was meant.
    pub(super) fn choice(
        &mut self,
        schema: &'s Value,
        choice: &'s [Value],
        item: &Item,
        beside: &[&'s str],
        out: &mut Vec<Mistake>,
    ) {
        let mut tried = Vec::new();
        for option in self.root.options(choice) {
            let mut found = Vec::new();
            self.item(option, item, beside, &mut found);
            if found.is_empty() {
                return;
            }
            tried.push((option, found));
        }
        let mistakes = self
            .by_variant(&tried, item, beside)
            .or_else(|| self.by_tag(&tried, item))
            .unwrap_or_else(|| self.by_form(schema, tried, item));
        out.extend(mistakes);
    }

    /// Enums as serde writes them: `"name"`, or `{ name = contents }`.
    fn by_variant(&self, tried: &[(&'s Value, Vec<Mistake>)], item: &Item, beside: &[&str]) -> Option<Vec<Mistake>> {
        let (mut plain, mut tables, mut others) = (Vec::new(), Vec::new(), 0);
        for (option, mistakes) in tried {
            match self.root.variant(option) {
                Variant::Names(names) => plain.extend(names),
                Variant::Table(name) => tables.push((name, mistakes)),
                Variant::Other if is_null(option) => {}
                Variant::Other => others += 1,
            }
        }
        // A name may stand for itself and have settings, too.
        let mut names: Vec<&str> = Vec::new();
        for name in plain.iter().copied().chain(tables.iter().map(|(name, _)| *name)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        match &item.content {
            Content::String(text) if !names.is_empty() => {
                let mut mistake = self.mistake("unknown-choice", item, alternatives(names.iter().copied()));
                if tables.iter().any(|(name, _)| name == text) {
                    mistake.message = format!("{}`{text}` needs settings", self.prefix());
                    mistake.label = "its settings are missing".into();
                    mistake.help = Some(format!("write {{ {text} = {{ ... }} }}"));
                } else if others > 0 {
                    return None;
                } else {
                    mistake.help = crate::nearest(text, names).map(|near| format!("did you mean `{near}`?"));
                }
                Some(vec![mistake])
            }
            Content::Table(entries) if !tables.is_empty() => {
                let own: Vec<&Entry> = entries.iter().filter(|e| !beside.contains(&e.key.as_str())).collect();
                let mut meant = own.iter().filter_map(|entry| tables.iter().find(|(name, _)| *name == entry.key));
                match (meant.next(), meant.next(), own.as_slice()) {
                    (Some((_, mistakes)), None, [_]) => Some((*mistakes).clone()),
                    (Some((name, _)), None, _) => {
                        let stray = own.iter().find(|entry| entry.key != *name)?;
                        let message = format!("`{}` can't stand beside `{name}`", stray.key);
                        Some(vec![self.at_key(stray, message, format!("does it belong into `{name}`?"))])
                    }
                    (Some((first, _)), Some((second, _)), _) => {
                        let entry = own.iter().find(|entry| entry.key == *second)?;
                        let message = format!("only one of `{first}` and `{second}` can be given");
                        Some(vec![self.at_key(entry, message, "leave one out".into())])
                    }
                    (None, _, _) if others > 0 => None,
                    (None, _, [entry]) if plain.contains(&entry.key.as_str()) => {
                        let message = format!("`{}` takes no settings", entry.key);
                        Some(vec![self.at_key(entry, message, format!("write \"{}\"", entry.key))])
                    }
                    (None, _, [entry, ..]) => {
                        let expected = alternatives(names.iter().copied());
                        let message = format!("expected {expected}, found `{}`", entry.key);
                        Some(vec![self.at_key(entry, message, suggest(&entry.key, "choices", names))])
                    }
                    (None, _, []) => Some(vec![self.mistake("wrong-type", item, alternatives(names))]),
                }
            }
            _ => None,
        }
    }

    fn at_key(&self, entry: &Entry, message: String, help: String) -> Mistake {
        let mut path = self.path.clone();
        path.push(entry.key.clone());
        Mistake {
            code: "unknown-choice",
            place: entry.place.clone(),
            path,
            label: "here".into(),
            message: format!("{}{message}", self.prefix()),
            help: Some(help),
        }
    }

    fn prefix(&self) -> String {
        match self.path.as_slice() {
            [] => format!("{}: ", self.subject.of),
            path => format!("`{}` of {}: ", super::tree::dotted(path), self.subject.of),
        }
    }

    /// Tables that name their form in one of their keys: `{ kind = "tpe", ... }`.
    fn by_tag(&self, tried: &[(&'s Value, Vec<Mistake>)], item: &Item) -> Option<Vec<Mistake>> {
        let entries = item.entries()?;
        let tags = |option: &'s Value| {
            let shape = self.root.shape(option);
            let properties = shape.properties().into_iter();
            let tags: Vec<(&str, &str)> = properties
                .filter_map(|name| {
                    let value = shape.property(name).into_iter().find_map(|schema| schema.get("const"))?.as_str()?;
                    Some((name, value))
                })
                .collect();
            tags
        };
        let first = tried.first().map(|(option, _)| tags(option))?;
        let tagged = |name: &str, option: &'s Value| tags(option).into_iter().find(|(tag, _)| *tag == name);
        let (tag, _) = first.into_iter().find(|(name, _)| tried.iter().all(|(o, _)| tagged(name, o).is_some()))?;
        let named = tried.iter().filter_map(|(option, mistakes)| Some((tagged(tag, option)?.1, mistakes)));
        let named: Vec<(&str, &Vec<Mistake>)> = named.collect();
        let names = alternatives(named.iter().map(|(name, _)| *name));
        let Some(entry) = entries.iter().find(|entry| entry.key == tag) else {
            let mut mistake = self.mistake("missing-parameter", item, format!("`{tag}` to say which"));
            mistake.message = format!("{}`{tag}` is missing", self.prefix());
            mistake.help = Some(format!("`{tag}` is {names}"));
            return Some(vec![mistake]);
        };
        let meant = named.iter().find(|(name, _)| entry.item.as_str() == Some(*name));
        Some(match meant {
            Some((_, mistakes)) => (*mistakes).clone(),
            None => {
                let near =
                    entry.item.as_str().and_then(|text| crate::nearest(text, named.iter().map(|(name, _)| *name)));
                let mut mistake = self.mistake("unknown-choice", &entry.item, names);
                mistake.path.push(tag.to_owned());
                mistake.help = near.map(|near| format!("did you mean `{near}`?"));
                vec![mistake]
            }
        })
    }

    /// The options that are at least of the right type; of several the one with the fewest mistakes.
    fn by_form(&self, schema: &'s Value, tried: Vec<(&'s Value, Vec<Mistake>)>, item: &Item) -> Vec<Mistake> {
        let here = |mistake: &Mistake| {
            matches!(mistake.code, "wrong-type" | "unknown-choice") && mistake.path.len() <= self.path.len()
        };
        let help = tried.iter().flat_map(|(_, mistakes)| mistakes).find_map(|mistake| mistake.help.clone());
        let fitting = tried.into_iter().map(|(_, mistakes)| mistakes).filter(|found| !found.iter().any(here));
        fitting
            .min_by_key(Vec::len)
            .unwrap_or_else(|| vec![Mistake { help, ..self.expected(schema, item, "wrong-type") }])
    }
}

fn is_null(option: &Value) -> bool {
    option.get("type").and_then(Value::as_str) == Some("null")
}

#[cfg(test)]
mod tests {
    use crate::pipeline::diagnostic::{Report, SourceFile};
    use crate::pipeline::params::{Subject, check_schema};
    use crate::pipeline::tree::Item;
    use serde_json::{Value, json};

    fn mistakes(schema: &Value, value: &Value) -> Vec<String> {
        let mut report = Report::new(SourceFile::code("p"));
        let subject = Subject { noun: "parameter", of: "`tune`", path: &[] };
        check_schema(schema, &Item::from_json(value), subject, &mut report);
        report.finish().into_iter().map(|diagnostic| diagnostic.message).collect()
    }

    #[test]
    fn a_name_with_or_without_settings_is_named_once() {
        let with = |name: &str| {
            json!({
                "type": "object", "properties": { name: { "$ref": "#/$defs/Empty" } },
                "required": [name], "additionalProperties": false
            })
        };
        let schema = json!({
            "anyOf": [{ "type": "string", "enum": ["random", "grid"] }, { "$ref": "#/$defs/Kind" }],
            "$defs": {
                "Kind": { "oneOf": [with("random"), with("grid")] },
                "Empty": { "type": "object", "properties": {}, "additionalProperties": false },
            }
        });
        assert!(mistakes(&schema, &json!("random")).is_empty());
        assert!(mistakes(&schema, &json!({"grid": {}})).is_empty());
        assert_eq!(mistakes(&schema, &json!("x")), ["`tune`: expected `random` or `grid`, found \"x\""]);
        assert_eq!(mistakes(&schema, &json!({"x": {}})), ["`tune`: expected `random` or `grid`, found `x`"]);
        assert_eq!(mistakes(&schema, &json!({"grid": {"n": 1}})), ["unknown parameter `grid.n` of `tune`"]);
    }

    #[test]
    fn schemas_that_refer_to_themselves_end() {
        let schema = json!({
            "anyOf": [
                { "type": "number" },
                { "type": "object", "properties": { "not": { "$ref": "#" } }, "required": ["not"], "additionalProperties": false },
            ]
        });
        assert!(mistakes(&schema, &json!({"not": {"not": 3}})).is_empty());
        assert_eq!(mistakes(&schema, &json!({"not": {"nto": 3}})).len(), 1);
        let endless = json!({ "$ref": "#", "anyOf": [{ "$ref": "#" }] });
        mistakes(&endless, &json!({"a": 1}));
    }
}
