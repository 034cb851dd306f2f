//! What a query may be: one query, whose result depends on its tables alone.

use super::sql_error;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as Ast;
use ropeway_framework::{Error, Result};

/// The one query of a text.
///
/// # Errors
/// A mistake of syntax, more or less than one statement, or a statement that is no query.
pub(super) fn parse(text: &str) -> Result<Statement> {
    let mut statements = DFParser::parse_sql(text).map_err(|error| sql_error::explain(&error, text))?;
    let Some(statement) = statements.pop_front() else {
        return Err(Error::usage("the query is empty").help("write one SELECT query"));
    };
    if !statements.is_empty() {
        return Err(Error::usage("expected one query, found several statements")
            .help("use WITH, or several stages, one for each query"));
    }
    match &statement {
        Statement::Statement(ast) if matches!(**ast, Ast::Query(_)) => Ok(statement),
        _ => Err(Error::usage(
            "only a query can be run: the tables of a stage can't be changed, nor files read or written",
        )
        .help("write one SELECT query")),
    }
}

/// Refuses a plan whose result depends on more than its tables: on chance, on the clock, on files.
///
/// # Errors
/// The function that must not be called.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    let only_queries = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_queries.verify_plan(plan)?;
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                refused = refused.take().or_else(|| unsteady(part));
                Ok::<_, DataFusionError>(match refused {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            })
        })
    })?;
    match refused {
        None => Ok(()),
        Some(name) => Err(Error::new(format!(
            "{name}() gives another value at each call, so the query can't be repeated"
        ))
        .help(match name.as_str() {
            "now" | "current_date" | "current_time" => "write the time as a literal: TIMESTAMP '2026-01-31 12:00:00'",
            _ => "use the stages `sample` and `split`, whose chance comes from the seed",
        })),
    }
}

/// The name of the function that an expression calls, if its value is not given by its arguments alone.
fn unsteady(expression: &Expr) -> Option<String> {
    let (name, volatility) = match expression {
        Expr::ScalarFunction(call) => (call.func.name(), call.func.signature().volatility),
        Expr::AggregateFunction(call) => (call.func.name(), call.func.signature().volatility),
        Expr::WindowFunction(call) => (call.fun.name(), call.fun.signature().volatility),
        _ => return None,
    };
    (volatility != Volatility::Immutable).then(|| name.to_owned())
}
