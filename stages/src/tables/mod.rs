//! Tables in, tables out: `sql`, `split`, `sample` and `join`.

mod join;
mod pick;
mod sample;
mod split;
mod sql;
mod sql_error;
mod sql_guard;
mod sql_parts;

use ropeway_framework::stage::{Registry, stage};

/// The stages of this folder.
pub fn registry() -> Registry {
    Registry::new()
        .stage(
            "sql",
            stage(sql::sql).outputs(["rows"]).version(1).about(
                "Runs one SQL query. Every input is a table of its name; the input of `from = \"stage\"` is `rows`.",
            ),
        )
        .stage("split", split::Split::new())
        .stage(
            "sample",
            stage(sample::sample)
                .inputs(["rows"])
                .outputs(["rows"])
                .version(1)
                .about("Draws rows at random, with or without replacement; they keep their order."),
        )
        .stage(
            "join",
            stage(join::join)
                .inputs(["left", "right"])
                .outputs(["rows"])
                .version(1)
                .about("Joins two tables on equal keys; rows come in the order of the left table."),
        )
}
