//! Queries whose rows stand alone, on several threads: each works on a run of neighbouring batches, and the results come
//! in the order of the rows. So they are those of one thread.

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use ropeway_framework::{Error, Result};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

/// The table whose rows a query passes on one by one, if it does no more than choose and compute: it reads one table,
/// once, and there is no row of the result that depends on two of the table's.
pub(super) fn table(plan: &LogicalPlan) -> PlanResult<Option<String>> {
    let (mut names, mut alone) = (Vec::new(), true);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {}
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => names.push(scan.table_name.table().to_owned()),
            _ => alone = false,
        }
        Ok(if alone { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    // A subquery would be a second table, or none.
    let name = names.pop().filter(|_| alone && names.is_empty());
    Ok(name)
}

/// The same plan over the table's batches in so many parts.
pub(super) fn divided(plan: LogicalPlan, batches: &[RecordBatch], parts: usize) -> PlanResult<LogicalPlan> {
    let size = batches.len().div_ceil(parts.max(1)).max(1);
    let divided = plan.transform_up(|node| match node {
        LogicalPlan::TableScan(mut scan) => {
            let parts = batches.chunks(size).map(<[RecordBatch]>::to_vec).collect();
            // The names of a source's columns stand without the table's.
            let table = MemTable::try_new(scan.source.schema(), parts)?;
            scan.source = provider_as_source(Arc::new(table));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(divided.data)
}

/// The batches of all parts of a plan, part by part: each on a thread of its own. `take` is given each of them, and may
/// refuse to go on; `explain` puts what goes wrong into words.
pub(super) fn execute(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    explain: &(impl Fn(DataFusionError) -> Error + Sync),
    take: &(impl Fn(RecordBatch) -> Result<Option<RecordBatch>> + Sync),
) -> Result<Vec<RecordBatch>> {
    let part = |place: usize| -> Result<Vec<RecordBatch>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let mut stream = plan.execute(place, context.clone()).map_err(explain)?;
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await {
                batches.extend(take(batch.map_err(explain)?)?);
            }
            Ok(batches)
        })
    };
    let parts = plan.properties().partitioning.partition_count();
    let part = &part;
    let done: Vec<Result<Vec<RecordBatch>>> = thread::scope(|scope| {
        let others: Vec<_> = (1..parts).map(|place| scope.spawn(move || part(place))).collect();
        let first = part(0);
        let join = |other: ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|panic| resume_unwind(panic));
        std::iter::once(first).chain(others.into_iter().map(join)).collect()
    });
    // The first failure in the order of the rows, whichever came first.
    let done: Vec<Vec<RecordBatch>> = done.into_iter().collect::<Result<_>>()?;
    Ok(done.into_iter().flatten().collect())
}
