//! Records and fields of separated text (RFC 4180), without reading what is in them.

use super::marks;
use crate::sources::rows::RecordError;

/// What separates and what encloses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// Between fields.
    pub(super) delimiter: u8,
    /// Around fields that have delimiters, quotes or line ends in them; doubled within.
    pub(super) quote: Option<u8>,
}

/// Where a field's content is. Text is at most 1 GiB long, so two bits are free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    start: u32,
    end: u32,
}

/// Bytes of a field that is short: room for so many fields is made beforehand.
pub(super) const SHORT: usize = 5;

const QUOTED: u32 = 1 << 31;
const DOUBLED: u32 = 1 << 30;

impl Field {
    pub(super) fn new(start: usize, end: usize, flags: u32) -> Self {
        Self { start: start as u32, end: end as u32 | flags }
    }

    /// The content as it stands, without the enclosing quotes.
    pub(super) fn raw(self, text: &str) -> &str {
        text.get(self.start()..self.end()).unwrap_or_default()
    }

    /// The same as bytes.
    pub(super) fn bytes(self, text: &[u8]) -> &[u8] {
        text.get(self.start()..self.end()).unwrap_or_default()
    }

    /// Where it begins.
    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub(super) fn end(self) -> usize {
        (self.end & !(QUOTED | DOUBLED)) as usize
    }

    /// Whether quotes enclose it.
    pub(super) fn is_quoted(self) -> bool {
        self.end & QUOTED != 0
    }

    /// Whether it has doubled quotes in it.
    pub(super) fn is_doubled(self) -> bool {
        self.end & DOUBLED != 0
    }
}

impl Dialect {
    /// A field's content with doubled quotes made single.
    pub(super) fn single(&self, raw: &str) -> String {
        let quote = char::from(self.quote.unwrap_or(b'"'));
        raw.replace(&format!("{quote}{quote}"), &quote.to_string())
    }

    /// Reads the record at `at`, and moves `at` past it; blank lines before it are skipped. False at the end.
    pub(super) fn record(&self, text: &[u8], at: &mut usize, fields: &mut Vec<Field>) -> Result<bool, RecordError> {
        loop {
            match text.get(*at..).unwrap_or_default() {
                [] => return Ok(false),
                [b'\n', ..] => *at += 1,
                [b'\r', b'\n', ..] => *at += 2,
                [b'\r'] => *at += 1,
                _ => break,
            }
        }
        loop {
            let rest = text.get(*at..).unwrap_or_default();
            let length = if self.quote.is_some() && rest.first().copied() == self.quote {
                self.quoted(text, *at, fields)?
            } else {
                let length = rest.iter().position(|byte| *byte == self.delimiter || *byte == b'\n');
                let length = length.unwrap_or(rest.len());
                let ends = rest.get(length).is_none_or(|byte| *byte == b'\n');
                let carriage = ends && length > 0 && rest.get(length - 1) == Some(&b'\r');
                fields.push(Field::new(*at, *at + length - usize::from(carriage), 0));
                length
            };
            *at += length;
            match text.get(*at) {
                None => return Ok(true),
                Some(b'\n') => {
                    *at += 1;
                    return Ok(true);
                }
                Some(_) => *at += 1,
            }
        }
    }

    /// Reads the enclosed field at `at`; gives the bytes up to the delimiter or line end after it.
    fn quoted(&self, text: &[u8], at: usize, fields: &mut Vec<Field>) -> Result<usize, RecordError> {
        let rest = text.get(at..).unwrap_or_default();
        let quote = self.quote.unwrap_or(b'"');
        let line = || 1 + text.iter().take(at).filter(|byte| **byte == b'\n').count();
        let (mut from, mut doubled) = (1, 0);
        loop {
            let more = rest.get(from..).unwrap_or_default();
            let Some(close) = more.iter().position(|byte| *byte == quote) else {
                return Err(RecordError::new(line(), "a quote is opened here and never closed")
                    .help("close it, or turn quotes off: quote = \"\""));
            };
            let close = from + close;
            match rest.get(close + 1..).unwrap_or_default() {
                [next, ..] if *next == quote => (from, doubled) = (close + 2, DOUBLED),
                [b'\r', b'\n', ..] | [b'\r'] => {
                    fields.push(Field::new(at + 1, at + close, QUOTED | doubled));
                    return Ok(close + 2);
                }
                [] => {
                    fields.push(Field::new(at + 1, at + close, QUOTED | doubled));
                    return Ok(close + 1);
                }
                [next, ..] if *next == self.delimiter || *next == b'\n' => {
                    fields.push(Field::new(at + 1, at + close, QUOTED | doubled));
                    return Ok(close + 1);
                }
                _ => {
                    return Err(RecordError::new(line(), "there is text after a closing quote")
                        .help("double quotes within a quoted field, or turn quotes off: quote = \"\""));
                }
            }
        }
    }

    /// Reads all records from `at` on; each must have `width` fields.
    pub(super) fn records(&self, text: &[u8], at: usize, width: usize) -> Result<Vec<Field>, RecordError> {
        match self.quote.is_some_and(|quote| text.contains(&quote)) {
            true => self.one_by_one(text, at, width),
            false => marks::records(self.delimiter, text, at, width),
        }
    }

    fn one_by_one(&self, text: &[u8], mut at: usize, width: usize) -> Result<Vec<Field>, RecordError> {
        let mut fields = Vec::with_capacity(text.len() / SHORT);
        loop {
            let before = fields.len();
            if !self.record(text, &mut at, &mut fields)? {
                return Ok(fields);
            }
            same_width(text, &fields, before, width)?;
        }
    }

    /// How many bytes at the head of `text` are whole records.
    pub(super) fn whole(&self, text: &[u8]) -> usize {
        let end = || text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let Some(quote) = self.quote.filter(|quote| text.contains(quote)) else { return end() };
        enum At {
            Start,
            Plain,
            Quoted,
            Closed,
        }
        let (mut state, mut whole) = (At::Start, 0);
        for (place, byte) in text.iter().enumerate() {
            state = match (state, *byte) {
                (At::Start | At::Closed, byte) if byte == quote => At::Quoted,
                (At::Quoted, byte) if byte == quote => At::Closed,
                (At::Quoted, _) => At::Quoted,
                (_, b'\n') => {
                    whole = place + 1;
                    At::Start
                }
                (_, byte) if byte == self.delimiter => At::Start,
                _ => At::Plain,
            };
        }
        whole
    }
}

/// Checks that the fields from `before` on are `width`.
pub(super) fn same_width(text: &[u8], fields: &[Field], before: usize, width: usize) -> Result<(), RecordError> {
    let found = fields.len() - before;
    if found == width {
        return Ok(());
    }
    let start = fields.get(before).map_or(0, |field: &Field| field.start());
    let line = 1 + text.iter().take(start).filter(|byte| **byte == b'\n').count();
    let error = RecordError::new(line, format!("{found} fields, but there are {width} columns"));
    Err(error.help(match found < width {
        true => "a value is missing, or the line is cut off",
        false => "a value with a delimiter in it must be enclosed in quotes; or `delimiter` is wrong",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMA: Dialect = Dialect { delimiter: b',', quote: Some(b'"') };

    fn all(text: &str, width: usize) -> Result<Vec<String>, RecordError> {
        let fields = COMMA.records(text.as_bytes(), 0, width)?;
        Ok(fields.iter().map(|field| COMMA.single(field.raw(text))).collect())
    }

    #[test]
    fn records_of_every_shape() {
        assert_eq!(all("a,b\n1,2\n", 2).unwrap(), ["a", "b", "1", "2"]);
        assert_eq!(all("a,b\r\n\r\n\n1,2", 2).unwrap(), ["a", "b", "1", "2"]);
        assert_eq!(all("\"a,\"\"x\"\"\nb\",\"\"\r\n,\n", 2).unwrap(), ["a,\"x\"\nb", "", "", ""]);
        assert_eq!(all("5\" disk,x\n", 2).unwrap(), ["5\" disk", "x"]);
        assert_eq!(all("a,", 2).unwrap(), ["a", ""]);
        assert_eq!(all("a\r", 1).unwrap(), ["a"]);
    }

    #[test]
    fn mistakes_have_a_line() {
        let fail = |text: &str| all(text, 2).unwrap_err();
        let error = fail("a,b\n\n1\n");
        assert_eq!((error.line, error.message.as_str()), (3, "1 fields, but there are 2 columns"));
        assert_eq!(fail("a,b\n1,2,3\n").line, 2);
        let error = fail("a,b\n1,\"x\n");
        assert_eq!((error.line, error.message.as_str()), (2, "a quote is opened here and never closed"));
        assert_eq!(fail("\"a\"b,c\n").message, "there is text after a closing quote");
    }

    proptest! {
        // Written out and read again, any content comes back; cut anywhere at a whole record, it reads the same.
        #[test]
        fn any_content_comes_back(cells in prop::collection::vec("[a,\"\r\né ]{0,6}", 2..40), crlf: bool) {
            let rows: Vec<&[String]> = cells.chunks_exact(2).collect();
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = String::new();
            for row in &rows {
                let quoted: Vec<String> = row.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
                text.push_str(&(quoted.join(",") + end));
            }
            let wanted: Vec<&String> = rows.iter().flat_map(|row| row.iter()).collect();
            let found = all(&text, 2).unwrap();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), wanted.clone());
            for cut in 0..text.len() {
                let whole = COMMA.whole(&text.as_bytes()[..cut]);
                let (head, tail) = (text.get(..whole).unwrap(), text.get(whole..).unwrap());
                let mut parts = all(head, 2).unwrap();
                parts.extend(all(tail, 2).unwrap());
                prop_assert_eq!(&parts, &found);
            }
        }

        // Text without quotes is read by its marks: as the long way reads it.
        #[test]
        fn the_short_way_is_the_long_way(text in "([a,\r\né]{0,5}|[a,]{0,40}\n){0,30}", width in 1_usize..4) {
            let long = COMMA.one_by_one(text.as_bytes(), 0, width);
            let short = COMMA.records(text.as_bytes(), 0, width);
            let plain = |found: Result<Vec<Field>, RecordError>| match found {
                Ok(fields) => Ok(fields.iter().map(|field| (field.start(), field.end())).collect::<Vec<_>>()),
                Err(error) => Err((error.line, error.message)),
            };
            prop_assert_eq!(plain(short), plain(long));
        }

        // Whatever the bytes are: an answer, not a panic.
        #[test]
        fn any_text_is_survived(text in "[a,\"\r\né]{0,60}", width in 1_usize..4) {
            let _ = all(&text, width);
            prop_assert!(COMMA.whole(text.as_bytes()) <= text.len());
        }
    }
}
