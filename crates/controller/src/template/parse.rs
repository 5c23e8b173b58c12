//! From parts to a tree.

use serde_json::{Value, json};

use super::TemplateError;
use super::lex::{Part, Token};
use super::numbers;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Pipe(Pipe),
    If { arms: Vec<(Pipe, Vec<Node>)>, otherwise: Vec<Node> },
    With { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Range { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

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

pub(super) fn parse(parts: Vec<Part>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { parts: parts.into_iter(), depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some(End { line, word, .. }) => Err(TemplateError { line, what: format!("{word} without a beginning") }),
    }
}

struct Parser {
    parts: std::vec::IntoIter<Part>,
    depth: usize,
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
                "with" | "range" => {
                    let pipe = pipe(line, &rest()).map_err(at)?;
                    let (body, otherwise) = self.body(line, &keyword)?;
                    nodes.push(if keyword == "with" {
                        Node::With { pipe, body, otherwise }
                    } else {
                        Node::Range { pipe, body, otherwise }
                    });
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "define" | "template" | "block" => return Err(at(format!("{keyword} is not supported here"))),
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

    fn body(&mut self, line: usize, keyword: &str) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let (body, end) = self.deeper(line, keyword)?;
        match (end.word.as_str(), end.rest.is_empty()) {
            ("end", true) => Ok((body, Vec::new())),
            ("else", true) => Ok((body, self.last(line, keyword)?)),
            _ => Err(TemplateError { line: end.line, what: format!("unexpected words after {}", end.word) }),
        }
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
