//! What may come in parts, read one by one.

use super::{Argument, Call, Signature, Stored};
use crate::data::{Artifact, Kind};
use crate::{Context, Error, Result};

/// One artifact at a port, or a [`List`](crate::data::List) of them, each read when it is asked for: for what is larger
/// than memory, such as the tables that `map` made of many files.
///
/// Nothing is read before [`Parts::get`], and nothing is kept after it: a stage holds the parts that it has in its
/// hands, and no others.
///
/// ```
/// use arrow::array::{ArrayRef, Float64Array};
/// use ropeway_framework::data::{Frame, Metrics};
/// use ropeway_framework::stage::{Parts, Registry};
/// use ropeway_framework::{Context, Result};
/// use std::sync::Arc;
///
/// /// The largest price in all of the tables.
/// fn dearest(tables: Parts<Frame>) -> Result<Metrics> {
///     let mut dearest = f64::NEG_INFINITY;
///     for table in tables.iter() {
///         let prices = table?.column("price")?;
///         let prices = prices.as_any().downcast_ref::<Float64Array>().context("prices are numbers")?;
///         dearest = prices.iter().flatten().fold(dearest, f64::max);
///     }
///     Ok(Metrics::new().with("dearest", dearest))
/// }
///
/// let registry = Registry::new().stage("dearest", dearest);
/// assert!(registry.get("dearest").unwrap().signature().inputs[0].parts);
///
/// let table = |prices: &[f64]| {
///     Frame::from_columns([("price", Arc::new(Float64Array::from(prices.to_vec())) as ArrayRef)])
/// };
/// let tables: Parts<Frame> = [table(&[3.0, 8.0])?, table(&[5.0])?].into_iter().collect();
/// assert_eq!(dearest(tables)?.get("dearest"), Some(8.0));
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parts<T> {
    parts: Vec<Part<T>>,
    list: bool,
}

#[derive(Clone, Debug)]
enum Part<T> {
    Stored(Stored),
    Here(T),
}

impl<T> Parts<T> {
    /// How many.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are none: the list is empty.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it is a list, of one part perhaps, and not an artifact by itself.
    pub fn is_list(&self) -> bool {
        self.list
    }
}

impl<T: Clone + TryFrom<Artifact, Error = Error>> Parts<T> {
    /// Reads a part; they are counted from 0.
    ///
    /// # Errors
    /// There is no such part, or it can't be read or is something else.
    pub fn get(&self, index: usize) -> Result<T> {
        let read = match self.parts.get(index) {
            Some(Part::Here(part)) => return Ok(part.clone()),
            Some(Part::Stored(stored)) => stored.load_as(),
            None => return Err(Error::new(format!("there is no part {index}: there are {}", self.len()))),
        };
        if self.list { read.context(format!("part {index}")) } else { read }
    }

    /// Reads one part after the other.
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<T> From<T> for Parts<T> {
    fn from(whole: T) -> Self {
        Self { parts: vec![Part::Here(whole)], list: false }
    }
}

impl<T> FromIterator<T> for Parts<T> {
    fn from_iter<I: IntoIterator<Item = T>>(parts: I) -> Self {
        Self { parts: parts.into_iter().map(Part::Here).collect(), list: true }
    }
}

impl<T: Argument + TryFrom<Artifact, Error = Error>> Argument for Parts<T> {
    fn describe(signature: &mut Signature) {
        T::describe(signature);
        if let Some(input) = signature.inputs.last_mut() {
            input.parts = true;
        }
    }

    fn take(call: &mut Call, signature: &Signature, port: &mut usize) -> Result<Self> {
        let input = signature.inputs.get(*port).context("a stage asked for more inputs than its signature has")?;
        *port += 1;
        let context = || format!("input {:?}", input.name);
        let stored = call.inputs.get(&input.name).and_then(|stored| stored.first());
        let stored = stored.ok_or_else(|| Error::usage(format!("{} is missing", context())))?;
        if stored.reference.kind != Kind::List {
            return Ok(Self { parts: vec![Part::Stored(stored.clone())], list: false });
        }
        let items = stored.items().context(context())?;
        let strange =
            items.iter().enumerate().find(|(_, item)| input.kind.is_some_and(|kind| kind != item.reference.kind));
        if let (Some((index, item)), Some(wanted)) = (strange, input.kind) {
            let found = item.reference.kind;
            return Err(Error::usage(format!("{}: part {index} is {found}, not {wanted}", context())));
        }
        Ok(Self { parts: items.into_iter().map(Part::Stored).collect(), list: true })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Cancel, Checkpoint, Devices, Fetch, Gang, Keep, Models, Once, Progress, Scratch, Seed, Tasks, Threads,
    };
    use super::*;
    use crate::data::{Digest, Metrics, Ref};
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    /// A list of metrics, and what was read of it.
    #[derive(Default)]
    struct Shelf {
        items: Vec<Ref>,
        read: Mutex<Vec<usize>>,
    }

    impl Fetch for Shelf {
        fn fetch(&self, reference: Ref) -> Result<Artifact> {
            let index = self.items.iter().position(|item| *item == reference).context("not here")?;
            self.read.lock().unwrap().push(index);
            Ok(Metrics::new().with("part", index as f64).into())
        }

        fn items(&self, _: Ref) -> Result<Vec<Ref>> {
            Ok(self.items.clone())
        }
    }

    fn name(index: u8, kind: Kind) -> Ref {
        Ref { kind, digest: Digest::of(&[index]), bytes: 1 }
    }

    /// What a stage is given for an input that is called so, of this shelf.
    fn given(shelf: &Arc<Shelf>, input: Ref) -> Result<Parts<Metrics>> {
        let mut signature = Signature::default();
        Parts::<Metrics>::describe(&mut signature);
        let inputs = BTreeMap::from([("input".to_owned(), vec![Stored::new(input, shelf.clone())])]);
        let mut call = Call {
            inputs,
            templates: BTreeMap::new(),
            params: Value::Null,
            seed: Seed::new(1, "parts"),
            progress: Progress::default(),
            checkpoint: Checkpoint::default(),
            once: Once::default(),
            keep: Keep::default(),
            tasks: Tasks::default(),
            cancel: Cancel::default(),
            scratch: Scratch::default(),
            models: Models::default(),
            threads: Threads::default(),
            devices: Devices::default(),
            gang: Gang::default(),
        };
        Parts::take(&mut call, &signature, &mut 0)
    }

    #[test]
    fn parts_are_read_when_they_are_asked_for_and_not_kept() {
        let items = (0..3).map(|index| name(index, Kind::Metrics)).collect();
        let shelf = Arc::new(Shelf { items, ..Shelf::default() });
        let parts = given(&shelf, name(9, Kind::List)).unwrap();
        assert!(parts.is_list() && parts.len() == 3 && shelf.read.lock().unwrap().is_empty());
        for index in [2, 0, 2] {
            assert_eq!(parts.get(index).unwrap().get("part"), Some(index as f64));
        }
        assert_eq!(*shelf.read.lock().unwrap(), [2, 0, 2]);
        assert_eq!(parts.iter().map(|part| part.unwrap().get("part").unwrap()).sum::<f64>(), 3.0);
        assert_eq!(parts.get(3).unwrap_err().to_string(), "there is no part 3: there are 3");
    }

    #[test]
    fn one_artifact_is_one_part_and_no_list() {
        let whole = name(0, Kind::Metrics);
        let shelf = Arc::new(Shelf { items: vec![whole], ..Shelf::default() });
        let parts = given(&shelf, whole).unwrap();
        assert!(!parts.is_list() && parts.len() == 1 && shelf.read.lock().unwrap().is_empty());
        assert!(parts.get(0).is_ok());
        let empty = given(&Arc::new(Shelf::default()), name(9, Kind::List)).unwrap();
        assert!(empty.is_list() && empty.is_empty());
    }

    #[test]
    fn a_part_of_another_kind_is_named_before_anything_is_read() {
        let items = vec![name(0, Kind::Metrics), name(1, Kind::Frame)];
        let shelf = Arc::new(Shelf { items, ..Shelf::default() });
        let error = given(&shelf, name(9, Kind::List)).unwrap_err();
        assert_eq!(error.to_string(), "input \"input\": part 1 is frame, not metrics");
        assert!(shelf.read.lock().unwrap().is_empty());
    }
}
