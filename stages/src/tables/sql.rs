//! SQL on DataFusion.
//!
//! The same query on the same rows gives the same bytes, on any number of threads and however the rows were cut into
//! batches. DataFusion's own parallelism can't promise that (partial sums are added, and partitions merged, in the
//! order in which threads end), so a query runs as one partition on a single-threaded runtime, whose tasks take turns
//! in a fixed order, over batches of a fixed size. Only a query that does no more than choose rows and compute columns
//! runs on several threads: see [`sql_parts`].

use super::{sql_error, sql_guard, sql_parts};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::sql::parser::Statement;
use ropeway_framework::data::{Frame, Kind};
use ropeway_framework::stage::{Argument, Call, Cancel, Input, Params, Signature, Threads};
use ropeway_framework::{Error, Result, nearest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows that DataFusion works on at once. It divides [`BATCH_ROWS`](ropeway_framework::data::BATCH_ROWS), so that
/// canonical batches are cut without a copy.
const ROWS_AT_ONCE: usize = 8192;

/// The table that `from = "stage"` gives.
const UNNAMED: &str = "rows";

/// What the `sql` stage is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Text")]
pub(super) struct Query {
    /// One SELECT query. Names are taken as they are written, upper or lower case.
    query: String,
}

/// A query whose syntax was not checked yet.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Text {
    query: String,
}

impl TryFrom<Text> for Query {
    type Error = Error;

    fn try_from(Text { query }: Text) -> Result<Self> {
        sql_guard::parse(&query)?;
        Ok(Self { query })
    }
}

/// The tables that a query may read: all inputs, by name.
pub(super) struct Tables(BTreeMap<String, Frame>);

impl Argument for Tables {
    fn describe(signature: &mut Signature) {
        signature.inputs.push(Input {
            name: UNNAMED.to_owned(),
            kind: Some(Kind::Frame),
            optional: true,
            ..Input::default()
        });
        signature.open = Some(Some(Kind::Frame));
    }

    fn take(call: &mut Call, _: &Signature, port: &mut usize) -> Result<Self> {
        *port += 1;
        call.inputs.keys().map(|name| Ok((name.clone(), call.input_as(name)?))).collect::<Result<_>>().map(Self)
    }
}

/// The stage.
pub(super) fn sql(
    Tables(tables): Tables,
    Params(params): Params<Query>,
    threads: Threads,
    cancel: Cancel,
) -> Result<Frame> {
    query(&tables, &params.query, threads, &cancel)
}

/// The rows that a query gives.
///
/// # Errors
/// The query is no plain query, names something that does not exist, depends on more than its tables, or fails.
pub(super) fn query(tables: &BTreeMap<String, Frame>, text: &str, threads: Threads, cancel: &Cancel) -> Result<Frame> {
    let statement = sql_guard::parse(text)?;
    let explain = |error| sql_error::explain(&error, text);
    let context = SessionContext::new_with_config(config());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let physical = runtime.block_on(plan(tables, text, statement, threads, &context))?;

    let schema = plain_schema(&physical.schema());
    unique_names(&schema)?;
    let take = |batch: RecordBatch| {
        cancel.check()?;
        let batch = (batch.num_rows() > 0).then(|| plain_batch(&schema, &batch)).transpose()?;
        Ok(batch)
    };
    let explain = |error| explain(error).context("the query failed");
    Frame::new(schema.clone(), sql_parts::execute(&physical, &context.task_ctx(), &explain, &take)?)
}

/// How the query is run, once it was found to be one that may be.
async fn plan(
    tables: &BTreeMap<String, Frame>,
    text: &str,
    statement: Statement,
    threads: Threads,
    context: &SessionContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    let explain = |error| sql_error::explain(&error, text);
    for (name, frame) in tables {
        let table = MemTable::try_new(frame.schema().clone(), vec![equal_batches(frame)?])?;
        context.register_table(TableReference::bare(name.as_str()), Arc::new(table))?;
    }
    let state = context.state();
    for table in state.resolve_table_references(&statement).map_err(explain)? {
        let known = tables.contains_key(table.table()) || state.table_functions().contains_key(table.table());
        if !known || table.schema().is_some() {
            return Err(unknown_table(&table.to_string(), tables));
        }
    }
    let mut plan = state.statement_to_plan(statement).await.map_err(explain)?;
    sql_guard::check(&plan)?;
    let alone = sql_parts::table(&plan)?.and_then(|name| tables.get(&name));
    if let Some(frame) = alone {
        plan = sql_parts::divided(plan, &equal_batches(frame)?, threads.0)?;
    }
    let physical = state.create_physical_plan(&plan).await.map_err(explain)?;
    Ok(match alone {
        Some(_) => physical,
        None => Arc::new(CoalescePartitionsExec::new(physical)),
    })
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(ROWS_AT_ONCE)
        .with_round_robin_repartition(false)
        .with_information_schema(false);
    let parser = &mut config.options_mut().sql_parser;
    // Columns of data files have capitals; people write them as they see them.
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    parser.collect_spans = true;
    config
}

fn unknown_table(name: &str, tables: &BTreeMap<String, Frame>) -> Error {
    let error = Error::new(format!("the query reads the table {name:?}, which is no input of this stage"));
    let names = || tables.keys().map(String::as_str);
    match nearest(name, names()) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None if tables.is_empty() => error.help("name its inputs: `from = { flights = \"stage\" }`"),
        None => error.help(format!("the tables are {}", names().collect::<Vec<_>>().join(", "))),
    }
}

/// The frame in batches of a fixed number of rows: sums over a batch then do not depend on how the rows came. Shared
/// where the frame's batches allow it, else copied once.
fn equal_batches(frame: &Frame) -> Result<Vec<RecordBatch>> {
    let inner = frame.batches().len().saturating_sub(1);
    let aligned = frame.batches().iter().take(inner).all(|batch| batch.num_rows() % ROWS_AT_ONCE == 0);
    let whole = if aligned { frame.batches().to_vec() } else { vec![frame.to_batch()?] };
    let cut = |batch: &RecordBatch| {
        let starts = (0..batch.num_rows()).step_by(ROWS_AT_ONCE);
        starts.map(|at| batch.slice(at, ROWS_AT_ONCE.min(batch.num_rows() - at))).collect::<Vec<_>>()
    };
    Ok(whole.iter().flat_map(cut).collect())
}

fn unique_names(schema: &Schema) -> Result<()> {
    let mut names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::new(format!("the query gives two columns called {:?}", pair[0]))
            .help("name one of them with AS, or list the columns instead of *")),
        None => Ok(()),
    }
}

/// The schema without DataFusion's views, which the rest of the world knows less well, and without metadata.
fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let plain = |field: &FieldRef| Field::new(field.name(), plain_type(field.data_type()), field.is_nullable());
    Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}

fn plain_type(data_type: &DataType) -> DataType {
    let item =
        |field: &FieldRef| Arc::new(Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(field) => DataType::List(item(field)),
        DataType::LargeList(field) => DataType::LargeList(item(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(item(field), *size),
        other => other.clone(),
    }
}

fn plain_batch(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => Ok(cast(column, field.data_type())?),
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    use proptest::prelude::*;

    fn flights() -> Frame {
        let carrier: ArrayRef = Arc::new(StringArray::from(vec!["AA", "UA", "AA", "DL"]));
        let delay: ArrayRef = Arc::new(Float64Array::from(vec![Some(5.0), Some(20.0), None, Some(30.0)]));
        let hour: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9, 10]));
        Frame::from_columns([("carrier", carrier), ("arrDelay", delay), ("hour", hour)]).unwrap()
    }

    fn ask(text: &str) -> Result<Frame> {
        query(&BTreeMap::from([("rows".to_owned(), flights())]), text, Threads(2), &Cancel::default())
    }

    fn fails(text: &str) -> String {
        format!("{:?}", ask(text).unwrap_err())
    }

    #[test]
    fn a_query_gives_rows_and_text_is_plain() {
        let got = ask("SELECT carrier || '!' AS name, \"arrDelay\" > 15 AS late FROM rows WHERE arrDelay IS NOT NULL")
            .unwrap();
        assert_eq!((got.rows(), got.columns()), (3, 2));
        assert_eq!(got.schema().field(0).data_type(), &DataType::Utf8);
        assert_eq!(got.column("name").unwrap().as_string::<i32>().value(1), "UA!");
    }

    #[test]
    fn no_rows_is_a_frame_with_its_columns() {
        let got = ask("SELECT carrier, hour FROM rows WHERE hour > 99").unwrap();
        assert_eq!((got.rows(), got.columns()), (0, 2));
    }

    #[test]
    fn functions_may_be_written_in_capitals() {
        let got = ask("SELECT carrier, COUNT(*) AS n FROM rows GROUP BY carrier ORDER BY n DESC, carrier").unwrap();
        assert_eq!(got.column("n").unwrap().as_primitive::<Int64Type>().value(0), 2);
    }

    #[test]
    fn several_inputs_are_several_tables() {
        let names: ArrayRef = Arc::new(StringArray::from(vec!["American"]));
        let code: ArrayRef = Arc::new(StringArray::from(vec!["AA"]));
        let airlines = Frame::from_columns([("code", code), ("name", names)]).unwrap();
        let tables = BTreeMap::from([("flights".to_owned(), flights()), ("airlines".to_owned(), airlines)]);
        let text = "SELECT f.hour, a.name FROM flights f JOIN airlines a ON f.carrier = a.code ORDER BY f.hour";
        assert_eq!(query(&tables, text, Threads(2), &Cancel::default()).unwrap().rows(), 2);
    }

    #[test]
    fn mistakes_are_explained() {
        let unknown = fails("SELECT arrDelai FROM rows");
        assert!(
            unknown.contains("no column \"arrDelai\"") && unknown.contains("did you mean \"arrDelay\""),
            "{unknown}"
        );
        assert!(unknown.contains("line 1, column 8"), "{unknown}");
        let table = fails("SELECT * FROM row");
        assert!(table.contains("table \"row\"") && table.contains("did you mean \"rows\""), "{table}");
        let syntax = fails("SELECT hour\nFORM rows WHERE");
        assert!(syntax.contains("syntax error at line 2"), "{syntax}");
        let function = fails("SELECT averag(hour) FROM rows");
        assert!(function.contains("averag") && !function.contains("Error during planning"), "{function}");
        let twice = fails("SELECT l.hour, r.hour FROM rows l JOIN rows r ON l.hour = r.hour");
        assert!(twice.contains("two columns called \"hour\""), "{twice}");
        let ambiguous = fails("SELECT hour FROM rows l JOIN rows r ON l.carrier = r.carrier");
        assert!(ambiguous.to_lowercase().contains("ambiguous"), "{ambiguous}");
    }

    #[test]
    fn only_queries_are_run() {
        for text in [
            "CREATE TABLE t AS SELECT * FROM rows",
            "INSERT INTO rows SELECT * FROM rows",
            "COPY rows TO 'x.csv'",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "SET datafusion.execution.batch_size = 1",
            "EXPLAIN SELECT 1",
            "DROP TABLE rows",
        ] {
            assert!(fails(text).contains("only a query can be run"), "{text}: {}", fails(text));
        }
        assert!(fails("SELECT 1; SELECT 2").contains("one query"));
        assert!(fails(" ").contains("empty"));
        assert!(fails("SELECT * FROM '/etc/passwd'").contains("no input of this stage"));
    }

    #[test]
    fn what_is_not_in_the_tables_is_refused_by_name() {
        for (text, name) in [
            ("SELECT random() AS r FROM rows", "random"),
            ("SELECT uuid() AS r FROM rows", "uuid"),
            ("SELECT now() AS r FROM rows", "now"),
            ("SELECT current_date AS r FROM rows", "current_date"),
            ("SELECT CURRENT_TIMESTAMP AS r FROM rows", "now"),
            ("SELECT hour FROM rows WHERE hour IN (SELECT hour FROM rows WHERE random() < 0.5)", "random"),
            ("WITH t AS (SELECT random() AS r) SELECT * FROM t", "random"),
            ("SELECT sum(random()) OVER (ORDER BY hour) AS r FROM rows", "random"),
        ] {
            let error = fails(text);
            assert!(error.contains(&format!("{name}()")), "{text}: {error}");
        }
    }

    #[test]
    fn a_cancelled_query_stops() {
        let cancel = Cancel::default();
        cancel.cancel();
        let tables = BTreeMap::from([("rows".to_owned(), flights())]);
        assert_eq!(query(&tables, "SELECT * FROM rows", Threads(2), &cancel).unwrap_err().to_string(), "interrupted");
    }

    #[test]
    fn rows_that_stand_alone_are_the_same_on_any_number_of_threads() {
        let numbers: ArrayRef =
            Arc::new(Float64Array::from_iter_values((0..50_000).map(|i| f64::from(i % 1013) / 7.0)));
        let frame = Frame::from_columns([("x", numbers)]).unwrap();
        let tables = BTreeMap::from([("rows".to_owned(), frame)]);
        let run = |text: &str, threads| query(&tables, text, Threads(threads), &Cancel::default());
        for (text, alone) in [
            ("SELECT exp(x) * 0.1 AS y, x > 9 AS big FROM rows WHERE x < 100 AND sqrt(x) > 1", true),
            (
                "SELECT y + 1 AS z FROM (SELECT x * x AS y FROM rows AS r WHERE x > 3) AS inner_rows WHERE y < 1000",
                true,
            ),
            ("SELECT x FROM rows WHERE x > (SELECT avg(x) FROM rows)", false),
            ("SELECT x FROM rows WHERE x IN (SELECT x FROM rows WHERE x > 100)", false),
            ("SELECT x FROM rows UNION ALL SELECT x + 1 FROM rows", false),
            ("SELECT x, row_number() OVER () AS n FROM rows", false),
            ("SELECT DISTINCT x FROM rows", false),
            ("SELECT x FROM rows LIMIT 20000 OFFSET 9000", false),
            ("SELECT x FROM rows ORDER BY x", false),
            ("SELECT x FROM rows WHERE false", true),
        ] {
            let context = SessionContext::new_with_config(config());
            let table = MemTable::try_new(tables["rows"].schema().clone(), vec![vec![]]).unwrap();
            context.register_table("rows", Arc::new(table)).unwrap();
            let plan = futures::executor::block_on(context.state().create_logical_plan(text)).unwrap();
            assert_eq!(sql_parts::table(&plan).unwrap().is_some(), alone, "{text}");
            let one = run(text, 1).unwrap().to_batch().unwrap();
            for threads in [2, 3, 8] {
                assert_eq!(run(text, threads).unwrap().to_batch().unwrap(), one, "{text}");
            }
        }
        // The first failure in the order of the rows, on any number of threads.
        let text = "SELECT CAST(CAST(CASE WHEN x > 140 THEN x * 1e9 ELSE x END AS BIGINT) AS INT) AS n FROM rows";
        let failures: Vec<String> = [1, 2, 5].map(|threads| format!("{:?}", run(text, threads).unwrap_err())).into();
        assert!(failures[0].contains("the query failed") && failures.iter().all(|other| *other == failures[0]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn batch_boundaries_do_not_matter(cuts in proptest::collection::vec(1usize..30_000, 0..4), seed in 0u64..1000) {
            let rows = 30_000usize;
            let value = |i: usize| ((i as u64 * 2_654_435_761 + seed) % 100_003) as f64 * 0.1;
            let numbers: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(value)));
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|i| (i % 7) as i64)));
            let whole = Frame::from_columns([("x", numbers), ("k", keys)]).unwrap();
            let batch = whole.to_batch().unwrap();
            let mut ends = cuts.clone();
            ends.extend([0, rows]);
            ends.sort_unstable();
            let parts = ends.windows(2).map(|w| batch.slice(w[0], w[1] - w[0])).collect();
            let cut = Frame::new(whole.schema().clone(), parts).unwrap();
            let text = "SELECT k, sum(x) AS s, avg(x) AS a FROM rows GROUP BY k \
                        UNION ALL SELECT -1 AS k, sum(x) AS s, stddev(x) AS a FROM rows";
            let sums = |frame: &Frame| {
                let got = query(&BTreeMap::from([("rows".to_owned(), frame.clone())]), text, Threads(2), &Cancel::default()).unwrap();
                let bits = |name: &str| -> Vec<u64> {
                    got.column(name).unwrap().as_primitive::<Float64Type>().values().iter().map(|v| v.to_bits()).collect()
                };
                (bits("s"), bits("a"))
            };
            prop_assert_eq!(sums(&whole), sums(&cut));
        }
    }
}
