//! Carrying out the tree.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::TemplateError;
use super::funcs;
use super::parse::{Defined, Node, Operand, Pipe};

/// Rendered text is a few lines; beyond this something runs away.
pub(super) const LIMIT: usize = 1 << 20;

/// Templates that call one another go a few levels deep; beyond this one calls itself.
const DEPTH: usize = 32;
/// All calls of one rendering.
const CALLS: usize = 10_000;

pub(super) fn eval(nodes: &[Node], defined: &Defined, data: &Value) -> Result<String, TemplateError> {
    let mut run = Run { out: String::new(), defined, depth: 0, calls: 0, root: data, variables: Vec::new() };
    run.nodes(nodes, data)?;
    Ok(run.out)
}

struct Run<'a> {
    out: String,
    defined: &'a Defined,
    depth: usize,
    calls: usize,
    root: &'a Value,
    /// Innermost last.
    variables: Vec<(String, Value)>,
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Run<'_> {
    /// Nodes in a scope of their own.
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Pipe(pipe) => {
                let value = self.assigned(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&funcs::text(&value));
                    if self.out.len() > LIMIT {
                        return Err(TemplateError {
                            line: pipe.line,
                            what: format!("more than {LIMIT} bytes of text"),
                        });
                    }
                }
            }
            Node::If { arms, otherwise } => {
                let scope = self.variables.len();
                for (condition, body) in arms {
                    let value = self.assigned(condition, dot)?;
                    if funcs::is_true(&value) {
                        let flow = self.nodes(body, dot)?;
                        self.variables.truncate(scope);
                        return Ok(flow);
                    }
                }
                let flow = self.nodes(otherwise, dot)?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::With { pipe, body, otherwise } => {
                let scope = self.variables.len();
                let value = self.assigned(pipe, dot)?;
                let flow = if funcs::is_true(&value) { self.nodes(body, &value) } else { self.nodes(otherwise, dot) }?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range { pipe, body, otherwise } => return self.range(pipe, body, otherwise, dot),
            Node::Template { line, name, pipe } => self.template(*line, name, pipe.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// A named template, whose `$` is what it is given and which sees no variable of its caller.
    fn template(&mut self, line: usize, name: &str, pipe: Option<&Pipe>, dot: &Value) -> Result<(), TemplateError> {
        let fail = |what: String| TemplateError { line, what };
        let defined = self.defined;
        let body = defined.get(name).ok_or_else(|| fail(format!("there is no template {name}")))?;
        if self.depth == DEPTH {
            return Err(fail(format!("template {name} calls itself without an end")));
        }
        if self.calls == CALLS {
            return Err(fail("too many calls of templates".into()));
        }
        let given = pipe.map(|pipe| self.pipe(pipe, dot)).transpose()?.unwrap_or_default();
        let mut inner = Run {
            out: std::mem::take(&mut self.out),
            defined,
            depth: self.depth + 1,
            calls: self.calls + 1,
            root: &given,
            variables: Vec::new(),
        };
        let flow = inner.nodes(body, &given);
        (self.out, self.calls) = (inner.out, inner.calls);
        flow.map(drop)
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        let items: Vec<(Value, Value)> = match self.pipe(pipe, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(index, item)| (json!(index), item)).collect(),
            Value::Object(map) => {
                let mut items: Vec<_> = map.into_iter().collect();
                items.sort_by(|(one, _), (two, _)| one.cmp(two));
                items.into_iter().map(|(key, item)| (json!(key), item)).collect()
            }
            Value::Number(count) if count.as_u64().is_some_and(|count| count <= LIMIT as u64 / 16) => {
                (0..count.as_u64().unwrap_or(0)).map(|at| (json!(at), json!(at))).collect()
            }
            Value::Null => Vec::new(),
            Value::String(text) if text.is_empty() => Vec::new(),
            other => {
                return Err(TemplateError {
                    line: pipe.line,
                    what: format!("cannot range over {}", funcs::text(&other)),
                });
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let scope = self.variables.len();
            match pipe.variables.as_slice() {
                [one] => self.set(pipe, one, item.clone())?,
                [one, two] => {
                    self.set(pipe, one, key)?;
                    self.set(pipe, two, item.clone())?;
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// The value of a pipe, which its variable gets as well.
    fn assigned(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.pipe(pipe, dot)?;
        match pipe.variables.as_slice() {
            [] => {}
            [name] => self.set(pipe, name, value.clone())?,
            _ => return Err(TemplateError { line: pipe.line, what: "two variables are for range".into() }),
        }
        Ok(value)
    }

    fn set(&mut self, pipe: &Pipe, name: &str, value: Value) -> Result<(), TemplateError> {
        if pipe.declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => return Err(no_variable(pipe.line, name)),
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(pipe.line, command, dot, value)?);
        }
        Ok(value.unwrap_or_default())
    }

    fn command(
        &mut self,
        line: usize,
        command: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let fail = |what: String| TemplateError { line, what };
        let Some((first, others)) = command.split_first() else { return Ok(Value::Null) };
        let Operand::Function(name) = first else {
            if !others.is_empty() || piped.is_some() {
                return Err(fail("only a function takes arguments".into()));
            }
            return self.operand(line, first, dot);
        };
        // `and` and `or` do not look at more than they need.
        if let Some(stop) = [("and", false), ("or", true)].iter().find(|(word, _)| word == name).map(|(_, stop)| *stop)
        {
            let mut value = Value::Null;
            for operand in others {
                value = self.operand(line, operand, dot)?;
                if funcs::is_true(&value) == stop {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        let mut arguments = Vec::with_capacity(others.len() + 1);
        for operand in others {
            arguments.push(self.operand(line, operand, dot)?);
        }
        arguments.extend(piped);
        let result = funcs::call(name, &arguments).map_err(fail)?;
        // These change their first map in place, which is what templates call them for.
        if let ("set" | "unset" | "merge" | "mergeOverwrite", Some(Operand::Variable(variable, path))) =
            (name.as_str(), others.first())
            && path.is_empty()
            && let Some((_, value)) = self.variables.iter_mut().rev().find(|(known, _)| known == variable)
        {
            *value = result.clone();
        }
        Ok(result)
    }

    fn operand(&mut self, line: usize, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        Ok(match operand {
            Operand::Dot => dot.clone(),
            Operand::Literal(value) => value.clone(),
            Operand::Field(path) => descend(dot, path),
            Operand::Variable(name, path) if name.is_empty() => descend(self.root, path),
            Operand::Variable(name, path) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| no_variable(line, name))?;
                descend(value, path)
            }
            Operand::Function(name) => funcs::call(name, &[]).map_err(|what| TemplateError { line, what })?,
            Operand::Pipe(pipe, path) => descend(&self.pipe(pipe, dot)?, path),
        })
    }
}

fn no_variable(line: usize, name: &str) -> TemplateError {
    TemplateError { line, what: format!("there is no variable ${name}") }
}

/// The value below `path`; a key that is missing is an empty value, and so is everything below it.
fn descend(value: &Value, path: &[String]) -> Value {
    path.iter().try_fold(value, |value, key| value.get(key)).cloned().unwrap_or_default()
}

/// Go's order of numbers and texts; `None` when the two cannot be compared.
pub(super) fn compare(one: &Value, two: &Value) -> Option<Ordering> {
    match (one, two) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        // A missing key stands for a parameter that was not given, which is an empty text.
        (Value::Null, Value::String(b)) => Some("".cmp(b)),
        (Value::String(a), Value::Null) => Some(a.as_str().cmp("")),
        _ if one == two => Some(Ordering::Equal),
        _ => None,
    }
}
