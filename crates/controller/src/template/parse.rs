//! From parts to a tree.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::TemplateError;
use super::lex::{Part, Token};
use super::numbers;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Pipe(Pipe),
    If {
        arms: Vec<(Pipe, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    With {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `template "name" pipe`.
    Template {
        line: usize,
        name: String,
        pipe: Option<Pipe>,
    },
    Break,
    Continue,
}

/// Templates by name, of `define` and `block`.
pub(super) type Defined = BTreeMap<String, Vec<Node>>;

/// Commands of which each hands its value to the next; the last value is the pipe's, and that of its variables.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) line: usize,
    pub(super) variables: Vec<String>,
    /// `:=` makes new variables, `=` changes those that exist.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    Literal(Value),
    /// `.a.b` of the dot.
    Field(Vec<String>),
    /// `$x.a.b`.
    Variable(String, Vec<String>),
    Function(String),
    /// `(pipe).a.b`.
    Pipe(Pipe, Vec<String>),
}

/// Templates nest a handful of levels; a deeper one is a mistake or an attack on the stack.
const DEPTH: usize = 64;

pub(super) fn parse(parts: Vec<Part>) -> Result<(Vec<Node>, Defined), TemplateError> {
    let mut parser = Parser { parts: parts.into_iter(), depth: 0, defined: Defined::new() };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok((nodes, parser.defined)),
        Some(End { line, word, .. }) => Err(TemplateError { line, what: format!("{word} without a beginning") }),
    }
}

struct Parser {
    parts: std::vec::IntoIter<Part>,
    depth: usize,
    defined: Defined,
}

/// `end` or `else …`, which closes a list of nodes.
struct End {
    line: usize,
    word: String,
    rest: Vec<Token>,
}

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.next() {
            let (line, tokens) = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Part::Action(line, tokens) => (line, tokens),
            };
            let at = |what: String| TemplateError { line, what };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let rest = || tokens[1..].to_vec();
            match keyword.as_str() {
                "end" | "else" => return Ok((nodes, Some(End { line, rest: rest(), word: keyword }))),
                "if" => nodes.push(self.branch(line, rest())?),
                "with" => nodes.push(self.with(line, &rest())?),
                "range" => {
                    let pipe = pipe(line, &rest()).map_err(at)?;
                    let (body, end) = self.deeper(line, &keyword)?;
                    let otherwise = self.otherwise(line, &keyword, &end)?;
                    nodes.push(Node::Range { pipe, body, otherwise });
                }
                "define" if self.depth > 0 => {
                    return Err(at("define stands at the top, not inside of something".into()));
                }
                "define" => {
                    let (name, rest) = named(&keyword, &tokens).map_err(at)?;
                    if !rest.is_empty() {
                        return Err(at("define wants a name and nothing else".into()));
                    }
                    self.define(line, &keyword, name)?;
                }
                "template" | "block" => {
                    let (name, rest) = named(&keyword, &tokens).map_err(at)?;
                    let pipe = if rest.is_empty() { None } else { Some(pipe(line, rest).map_err(at)?) };
                    nodes.push(Node::Template { line, name: name.clone(), pipe });
                    if keyword == "block" {
                        self.define(line, &keyword, name)?;
                    }
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                _ => nodes.push(Node::Pipe(pipe(line, &tokens).map_err(at)?)),
            }
        }
        Ok((nodes, None))
    }

    fn deeper(&mut self, line: usize, keyword: &str) -> Result<(Vec<Node>, End), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(TemplateError { line, what: format!("{keyword} is nested too deeply") });
        }
        let (nodes, end) = self.nodes()?;
        self.depth -= 1;
        let end = end.ok_or_else(|| TemplateError { line, what: format!("{keyword} has no end") })?;
        Ok((nodes, end))
    }

    /// `if`, with its `else if`s.
    fn branch(&mut self, line: usize, condition: Vec<Token>) -> Result<Node, TemplateError> {
        let mut arms = Vec::new();
        let mut condition = (line, condition);
        loop {
            let pipe = pipe(condition.0, &condition.1).map_err(|what| TemplateError { line: condition.0, what })?;
            let (body, end) = self.deeper(line, "if")?;
            arms.push((pipe, body));
            match (end.word.as_str(), end.rest.first()) {
                ("end", None) => return Ok(Node::If { arms, otherwise: Vec::new() }),
                ("else", None) => {
                    let otherwise = self.last(line, "if")?;
                    return Ok(Node::If { arms, otherwise });
                }
                ("else", Some(Token::Word(word))) if word == "if" => condition = (end.line, end.rest[1..].to_vec()),
                _ => {
                    return Err(TemplateError { line: end.line, what: format!("unexpected words after {}", end.word) });
                }
            }
        }
    }

    /// `with`, whose `else` may be another one.
    fn with(&mut self, line: usize, tokens: &[Token]) -> Result<Node, TemplateError> {
        let pipe = pipe(line, tokens).map_err(|what| TemplateError { line, what })?;
        let (body, end) = self.deeper(line, "with")?;
        let otherwise = match end.rest.first() {
            Some(Token::Word(word)) if end.word == "else" && word == "with" => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return Err(TemplateError { line, what: "with is nested too deeply".into() });
                }
                let next = self.with(end.line, &end.rest[1..])?;
                self.depth -= 1;
                vec![next]
            }
            _ => self.otherwise(line, "with", &end)?,
        };
        Ok(Node::With { pipe, body, otherwise })
    }

    /// What follows the body that `end` has closed.
    fn otherwise(&mut self, line: usize, keyword: &str, end: &End) -> Result<Vec<Node>, TemplateError> {
        match (end.word.as_str(), end.rest.is_empty()) {
            ("end", true) => Ok(Vec::new()),
            ("else", true) => self.last(line, keyword),
            _ => Err(TemplateError { line: end.line, what: format!("unexpected words after {}", end.word) }),
        }
    }

    fn define(&mut self, line: usize, keyword: &str, name: String) -> Result<(), TemplateError> {
        let (body, end) = self.deeper(line, keyword)?;
        if end.word != "end" || !end.rest.is_empty() {
            return Err(TemplateError { line: end.line, what: format!("only end can follow {keyword}") });
        }
        self.defined.insert(name, body);
        Ok(())
    }

    fn last(&mut self, line: usize, keyword: &str) -> Result<Vec<Node>, TemplateError> {
        let (nodes, end) = self.deeper(line, keyword)?;
        if end.word == "end" && end.rest.is_empty() {
            Ok(nodes)
        } else {
            Err(TemplateError { line: end.line, what: "only end can follow else".into() })
        }
    }
}

/// The name after `keyword`, and what comes after the name.
fn named<'a>(keyword: &str, tokens: &'a [Token]) -> Result<(String, &'a [Token]), String> {
    match tokens.get(1) {
        Some(Token::Text(name)) => Ok((name.clone(), &tokens[2..])),
        _ => Err(format!("{keyword} wants a name in quotes")),
    }
}

fn pipe(line: usize, tokens: &[Token]) -> Result<Pipe, String> {
    let mut at = 0;
    let pipe = pipe_from(line, tokens, &mut at, 0)?;
    match tokens.get(at) {
        None => Ok(pipe),
        Some(token) => Err(format!("unexpected {token:?}")),
    }
}

fn pipe_from(line: usize, tokens: &[Token], at: &mut usize, depth: usize) -> Result<Pipe, String> {
    if depth > DEPTH {
        return Err("parentheses are nested too deeply".into());
    }
    let (variables, declares, used) = match &tokens[*at..] {
        [Token::Variable(one), Token::Sign(sign @ (":=" | "=")), ..] => (vec![one.clone()], *sign == ":=", 2),
        [Token::Variable(one), Token::Sign(","), Token::Variable(two), Token::Sign(sign @ (":=" | "=")), ..] => {
            (vec![one.clone(), two.clone()], *sign == ":=", 4)
        }
        _ => (Vec::new(), false, 0),
    };
    *at += used;
    let mut commands = vec![Vec::new()];
    while let Some(token) = tokens.get(*at) {
        if matches!(token, Token::Sign(")")) {
            break;
        }
        *at += 1;
        let operand = match token {
            Token::Sign("|") => {
                commands.push(Vec::new());
                continue;
            }
            Token::Sign("(") => {
                let inner = pipe_from(line, tokens, at, depth + 1)?;
                if tokens.get(*at) != Some(&Token::Sign(")")) {
                    return Err("a ( is not closed".into());
                }
                *at += 1;
                Operand::Pipe(inner, fields(tokens, at))
            }
            Token::Dot => Operand::Dot,
            Token::Field { name, .. } => {
                let mut path = vec![name.clone()];
                path.extend(fields(tokens, at));
                Operand::Field(path)
            }
            Token::Variable(name) => Operand::Variable(name.clone(), fields(tokens, at)),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Literal(json!(true)),
                "false" => Operand::Literal(json!(false)),
                "nil" => Operand::Literal(Value::Null),
                _ => Operand::Function(word.clone()),
            },
            Token::Text(text) => Operand::Literal(json!(text)),
            Token::Number(number) => {
                Operand::Literal(numbers::literal(number).ok_or_else(|| format!("{number} is not a number"))?)
            }
            Token::Sign(sign) => return Err(format!("unexpected {sign}")),
        };
        if let Some(command) = commands.last_mut() {
            command.push(operand);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return Err("a command is missing".into());
    }
    Ok(Pipe { line, variables, declares, commands })
}

/// The `.a.b` that is glued to the word before.
fn fields(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Field { name, glued: true }) = tokens.get(*at) {
        path.push(name.clone());
        *at += 1;
    }
    path
}
