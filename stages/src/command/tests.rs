use super::*;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use ropeway_framework::data::{Artifact, Metrics, Tensor, Tensors};
use ropeway_framework::stage::{Report, ReportSink, Stored};
use ropeway_framework::store::Store;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn frame(rows: i64) -> Frame {
    let columns: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("text", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("row {row}"))))),
    ];
    Frame::from_columns(columns).unwrap()
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl ReportSink for Log {
    fn report(&self, report: Report) {
        self.0.lock().unwrap().extend(report.line);
    }
}

fn call(params: Value, inputs: Vec<(&str, Artifact)>, log: &Arc<Log>, cancel: Cancel) -> Result<Frame> {
    call_with(&Store::memory(), params, inputs, log, cancel)
}

fn call_with(
    store: &Store,
    params: Value,
    inputs: Vec<(&str, Artifact)>,
    log: &Arc<Log>,
    cancel: Cancel,
) -> Result<Frame> {
    let stored = |artifact: Artifact| {
        let reference = ropeway_framework::runtime().unwrap().block_on(store.put(&artifact)).unwrap();
        Stored::new(reference, store.fetcher())
    };
    let inputs = Wired(inputs.into_iter().map(|(port, one)| (port.to_owned(), stored(one))).collect());
    let params = Params(serde_json::from_value(params).unwrap());
    let progress = Progress::new(log.clone());
    command(inputs, params, Seed::new(7, "test"), progress, cancel, Scratch::default())
}

fn run(params: Value, input: Option<Frame>) -> Result<Frame> {
    let inputs = input.map(|frame| ("input", Artifact::Frame(frame))).into_iter().collect();
    call(params, inputs, &Arc::default(), Cancel::default())
}

fn sh(script: &str, input: Option<Frame>) -> Result<Frame> {
    run(json!({ "run": ["sh", "-c", script] }), input)
}

fn fail(script: &str) -> String {
    format!("{:?}", sh(script, Some(frame(10))).unwrap_err())
}

fn same(one: &Frame, other: &Frame) -> bool {
    one.to_batch().unwrap() == other.to_batch().unwrap()
}

#[test]
fn what_goes_in_comes_out() {
    for rows in [0, 1, 1000] {
        assert!(same(&run(json!({ "run": ["cat"] }), Some(frame(rows))).unwrap(), &frame(rows)));
    }
}

#[test]
fn much_in_and_out_at_once_is_no_deadlock() {
    // Far more than pipes hold, while the program also fills stderr.
    let big = frame(1_500_000);
    let log = Arc::<Log>::default();
    let script = "head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 99 >&2; exec cat";
    let inputs = vec![("input", Artifact::Frame(big.clone()))];
    let read = call(json!({ "run": ["sh", "-c", script] }), inputs, &log, Cancel::default()).unwrap();
    assert!(same(&read, &big));
    assert!(log.0.lock().unwrap().len() > 30_000);
}

#[test]
fn the_environment_is_small_and_says_what_is_needed() {
    let log = Arc::<Log>::default();
    let params = json!({
        "run": ["sh", "-c", "env >&2; exec cat"], "params": { "b": [1, 2], "a": "x" }, "env": { "MORE": "yes" },
    });
    call(params, vec![("input", Artifact::Frame(frame(1)))], &log, Cancel::default()).unwrap();
    let lines = log.0.lock().unwrap().clone();
    let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
    assert_eq!(value("ROPEWAY_PARAMS").unwrap(), r#"{"a":"x","b":[1,2]}"#);
    assert!(value("ROPEWAY_SEED").unwrap().parse::<u32>().is_ok());
    assert_eq!((value("MORE"), value("PYTHONHASHSEED")), (Some("yes".into()), Some("0".into())));
    assert!(value("PATH").is_some() && value("CARGO_PKG_NAME").is_none() && value("ROPEWAY_INPUT_INPUT").is_none());
}

#[test]
fn several_inputs_are_files() {
    let tensors = Tensors::new().with("w", Tensor::from_vec(vec![2], vec![1.0_f32, 2.0]).unwrap());
    let inputs = vec![
        ("rows", Artifact::Frame(frame(5))),
        ("weights.best", Artifact::Tensors(tensors)),
        ("scores", Artifact::Metrics(Metrics::new().with("loss", 0.5))),
    ];
    let log = Arc::<Log>::default();
    let script = "head -c 6 $ROPEWAY_INPUT_ROWS >&2; echo >&2; grep -c F32 $ROPEWAY_INPUT_WEIGHTS_BEST >&2; \
                  cat $ROPEWAY_INPUT_SCORES >&2; exec cat";
    let read = call(json!({ "run": ["sh", "-c", script] }), inputs, &log, Cancel::default()).unwrap();
    assert!(same(&read, &frame(5)));
    assert_eq!(*log.0.lock().unwrap(), ["ARROW1", "1", r#"{"loss":0.5}"#]);
    let clash = vec![("a-b", Artifact::Frame(frame(1))), ("a_b", Artifact::Frame(frame(1)))];
    let error = call(json!({ "run": ["cat"] }), clash, &log, Cancel::default()).unwrap_err();
    assert!(error.to_string().contains("two inputs would be called ROPEWAY_INPUT_A_B"), "{error}");
}

#[test]
fn a_program_that_is_not_there_is_said_with_what_is() {
    let error = format!("{:?}", run(json!({ "run": ["shh"] }), None).unwrap_err());
    assert!(error.contains("there is no program \"shh\"") && error.contains("did you mean"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("score.sh");
    std::fs::write(&script, "#!/no/such/shell\n").unwrap();
    let path = script.display().to_string();
    let error = format!("{:?}", run(json!({ "run": [path] }), None).unwrap_err());
    assert!(error.contains("may not be run") && error.contains("chmod +x"), "{error}");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = format!("{:?}", run(json!({ "run": [path] }), None).unwrap_err());
    assert!(error.contains("the interpreter in its first line is missing"), "{error}");
    let error = format!("{:?}", run(json!({ "run": [path.replace("score", "scor")] }), None).unwrap_err());
    assert!(error.contains("did you mean") && error.contains("score.sh"), "{error}");
}

#[test]
fn failures_show_the_last_lines() {
    let error = fail("for i in $(seq 100); do echo line $i >&2; done; cat > /dev/null; exit 3");
    assert!(
        error.contains("ended with exit code 3") && error.contains("line 100") && !error.contains("line 88\n"),
        "{error}"
    );
    assert!(fail("kill -SEGV $$").contains("SIGSEGV"));
    assert!(fail("kill -KILL $$").contains("ran out of memory"));
    // Its exit code says more than its half output.
    assert!(fail("head -c 300; exit 4").contains("exit code 4"));
}

#[test]
fn output_that_is_no_stream_is_said() {
    let error = fail("echo accuracy: 0.5");
    assert!(
        error.contains("must carry an Arrow IPC stream; found \"accuracy: 0.5\"") && error.contains("stderr"),
        "{error}"
    );
    assert!(fail("exit 0").contains("wrote nothing to stdout"));
    assert!(fail("head -c 700").contains("half an Arrow IPC stream"));
    assert!(fail("cat; echo done").contains("after the end of the Arrow IPC stream"));
    // Printing without end is no reason to wait without end.
    assert!(fail("yes").contains("found \"y\\ny\\n"));
}

#[test]
fn input_may_be_left_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let save = format!("cat > {0}; cat {0}", path.display());
    assert!(same(&sh(&save, Some(frame(10))).unwrap(), &frame(10)));
    // Far more than a pipe holds, closed at once: an early end is no error by itself.
    let read = sh(&format!("exec < /dev/null; cat {}", path.display()), Some(frame(500_000))).unwrap();
    assert!(same(&read, &frame(10)));
}

#[test]
fn a_timeout_kills_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; sleep 1000", path.display());
    let started = Instant::now();
    let error = run(json!({ "run": ["sh", "-c", script], "timeout": "3s" }), Some(frame(500_000))).unwrap_err();
    assert!(error.to_string().contains("did not end within 3s and was killed"), "{error}");
    assert!(started.elapsed().as_secs() < 100);
    assert!(gone(&path));
}

#[test]
fn cancelling_kills_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let cancel = Cancel::default();
    // The log's line says that the program runs; that cancels it.
    struct Stop(Cancel);
    impl ReportSink for Stop {
        fn report(&self, _: Report) {
            self.0.cancel();
        }
    }
    let script = format!("sleep 1000 & echo $! > {}; echo ready >&2; wait", path.display());
    let params = Params(serde_json::from_value(json!({ "run": ["sh", "-c", script] })).unwrap());
    let progress = Progress::new(Arc::new(Stop(cancel.clone())));
    let error =
        command(Wired::default(), params, Seed::new(7, "test"), progress, cancel, Scratch::default()).unwrap_err();
    assert_eq!(error.whose(), ropeway_framework::Fault::Interrupted);
    assert!(gone(&path));
}

#[test]
fn what_a_program_leaves_behind_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    // The sleeper holds stdout open: without the kill, the reader would wait for it.
    let script = format!("cat; sleep 1000 & echo $! > {}", path.display());
    assert!(same(&sh(&script, Some(frame(10))).unwrap(), &frame(10)));
    assert!(gone(&path));
}

/// Whether the process whose id is in a file is gone, or dead and not yet collected by init; it may need a moment to leave.
fn gone(path: &Path) -> bool {
    let pid = std::fs::read_to_string(path).unwrap();
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim().starts_with(['Z', 'X'])))
    };
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until && lives() {
        std::thread::yield_now();
    }
    !lives()
}

#[test]
fn the_script_is_part_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("score.py");
    let words = Words::try_from(vec!["python3".to_owned(), script.display().to_string(), "--x".to_owned()]).unwrap();
    let none = files(&words).unwrap();
    std::fs::write(&script, "one").unwrap();
    let one = files(&words).unwrap();
    std::fs::write(&script, "two").unwrap();
    let two = files(&words).unwrap();
    assert!(none != one && one != two);
}

#[test]
fn parameters_are_checked() {
    let parse = |value: Value| serde_json::from_value::<CommandParams>(value).map_err(|error| error.to_string());
    assert!(parse(json!({ "run": [] })).unwrap_err().contains("expected a program"));
    assert!(parse(json!({ "run": ["x"], "timeout": "1 week" })).unwrap_err().contains("expected a time like"));
    let minute = parse(json!({ "run": ["x"], "timeout": "1m" })).unwrap();
    assert_eq!(serde_json::to_value(minute).unwrap()["timeout"], "60s");
    let signature = ropeway_framework::stage::Stage::signature(&stage()).clone();
    assert_eq!((signature.inputs.len(), signature.open, signature.seeded), (1, Some(None), true));
}

/// A store in a folder, one in memory that spills all, and one that has no files.
fn places(folder: &Path) -> Vec<Store> {
    let folder = ropeway_framework::runtime().unwrap().block_on(Store::open(folder.to_str().unwrap())).unwrap();
    vec![folder, Store::memory().with_memory(0), Store::memory()]
}

#[test]
fn with_files_a_program_gets_and_gives_arrow_files() {
    let folder = tempfile::tempdir().unwrap();
    for (index, store) in places(folder.path()).iter().enumerate() {
        let log = Arc::<Log>::default();
        // What comes in is an Arrow IPC file already.
        let script = "cp \"$ROPEWAY_INPUT_INPUT\" \"$ROPEWAY_OUTPUT/output.arrow\"; echo said; \
                      stat -L -c 'links %h mode %a' \"$ROPEWAY_INPUT_INPUT\"; wc -c >&2";
        let params = json!({ "run": ["sh", "-c", script], "io": "files" });
        let inputs = vec![("input", Artifact::Frame(frame(100_000)))];
        let read = call_with(store, params, inputs, &log, Cancel::default()).unwrap();
        assert!(same(&read, &frame(100_000)));
        let lines = log.0.lock().unwrap().clone();
        assert!(lines.contains(&"said".to_owned()) && lines.contains(&"0".to_owned()), "{lines:?}");
        // It is the store's own file, which nobody may write.
        let own = lines.iter().any(|line| line == "links 2 mode 444" || line == "links 1 mode 444");
        assert_eq!(own, index < 2, "{lines:?}");
    }
}

#[test]
fn a_missing_or_wrong_file_is_said() {
    let files = |script: &str| {
        let params = json!({ "run": ["sh", "-c", script], "io": "files" });
        format!("{:?}", run(params, Some(frame(10))).unwrap_err())
    };
    assert!(files("echo on purpose >&2").contains("wrote no output.arrow; the last it said was:\n    on purpose"));
    assert!(files("echo > $ROPEWAY_OUTPUT/output.arrow").contains("wrote an output.arrow that can't be read"));
    assert!(files("head -c 300 $ROPEWAY_INPUT_INPUT > $ROPEWAY_OUTPUT/output.arrow").contains("can't be read"));
    assert!(files("exit 3").contains("exit code 3"));
    assert!(files("cat > /dev/null; mkdir $ROPEWAY_OUTPUT/output.arrow").contains("wrote no output.arrow"));
}

#[test]
fn python_maps_the_file_of_the_store() {
    let Some(python) = std::env::var_os("ROPEWAY_TEST_PYTHON") else { return };
    const SCRIPT: &str = r#"
import os, sys
import pyarrow as pa
before = pa.total_allocated_bytes()
with pa.memory_map(os.environ["ROPEWAY_INPUT_INPUT"]) as file:
    rows = pa.ipc.open_file(file).read_all()
    print("allocated", pa.total_allocated_bytes() - before)
    with pa.OSFile(os.environ["ROPEWAY_OUTPUT"] + "/output.arrow", "wb") as out:
        with pa.ipc.new_file(out, rows.schema) as writer:
            writer.write_table(rows.slice(10))
"#;
    let folder = tempfile::tempdir().unwrap();
    for store in places(folder.path()) {
        let log = Arc::<Log>::default();
        let params = json!({ "run": [python.to_str().unwrap(), "-c", SCRIPT], "io": "files" });
        let inputs = vec![("input", Artifact::Frame(frame(200_000)))];
        let read = call_with(&store, params, inputs, &log, Cancel::default()).unwrap();
        assert!(same(&read, &frame(200_000).slice(10, 200_000)));
        assert_eq!(*log.0.lock().unwrap(), ["allocated 0"]);
    }
}
