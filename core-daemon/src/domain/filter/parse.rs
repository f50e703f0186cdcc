//! The parser of one filter: a walk over its characters. The grammar is in [`super`].

use regex::RegexBuilder;

use super::{Filter, MAX_FILTER, Selector, Test};
use crate::domain::Invalid;

/// The largest compiled expression, bytes.
const MAX_PROGRAM: usize = 1 << 20;

pub(super) fn filter(text: &str) -> Result<Filter, Invalid> {
    if text.len() > MAX_FILTER {
        return Err(Invalid(format!("a filter is longer than {MAX_FILTER} bytes")));
    }
    let mut walk = Walk { text, at: 0 };
    walk.filter().map_err(|reason| Invalid(format!("filter {text:?}: {reason}, at byte {}", walk.at)))
}

struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl Walk<'_> {
    fn filter(&mut self) -> Result<Filter, String> {
        let mut selectors = Vec::new();
        self.space();
        if self.peek().is_none() {
            return Ok(Filter(selectors));
        }
        loop {
            selectors.push(self.selector()?);
            self.space();
            match self.next() {
                None => return Ok(Filter(selectors)),
                Some(',') => self.space(),
                Some(other) => return Err(format!("expected a comma or the end, found {other:?}")),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.field()?];
        while self.peek() == Some('.') {
            self.next();
            path.push(self.field()?);
        }
        self.space();
        let rest = &self.text[self.at..];
        let operator = rest.get(..2).unwrap_or_default();
        let test = match operator {
            "==" | "!=" | "~=" => {
                self.at += 2;
                self.space();
                let value = self.value(operator == "~=")?;
                match operator {
                    "==" => Test::Equal(value),
                    "!=" => Test::NotEqual(value),
                    _ => {
                        let compiled = RegexBuilder::new(&value).size_limit(MAX_PROGRAM).build();
                        Test::Matches(compiled.map_err(|e| format!("{value:?} is no regular expression: {e}"))?)
                    }
                }
            }
            _ if rest.is_empty() || rest.starts_with(',') => Test::Present,
            _ => return Err("expected one of the operators ==, != and ~=".into()),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, String> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            self.next();
        }
        if begin == self.at { Err("expected a field".into()) } else { Ok(self.text[begin..self.at].to_owned()) }
    }

    fn value(&mut self, expression: bool) -> Result<String, String> {
        match self.peek() {
            Some('"') => self.quoted(),
            Some(quote @ ('|' | '/')) if expression => self.quoted_expression(quote),
            Some('|') => Err("|…| quotes regular expressions only".into()),
            _ => {
                let begin = self.at;
                while self.peek().is_some_and(|c| c != ',' && !c.is_whitespace()) {
                    self.next();
                }
                if begin == self.at { Err("expected a value".into()) } else { Ok(self.text[begin..self.at].to_owned()) }
            }
        }
    }

    /// A regular expression between `quote`s. A backslash takes the quote's meaning away; all others are its own.
    fn quoted_expression(&mut self, quote: char) -> Result<String, String> {
        self.next();
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err(format!("a closing {quote} is missing")),
                Some(c) if c == quote => return Ok(value),
                Some('\\') => match self.next() {
                    Some(c) if c == quote => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => return Err(format!("a closing {quote} is missing")),
                },
                Some(c) => value.push(c),
            }
        }
    }

    /// A string between double quotes, with the escapes of Go that stand for characters.
    fn quoted(&mut self) -> Result<String, String> {
        self.next();
        let mut value = String::new();
        loop {
            let c = self.next().ok_or("a closing \" is missing")?;
            match c {
                '"' => return Ok(value),
                '\\' => {
                    let escape = self.next().ok_or("a closing \" is missing")?;
                    value.push(match escape {
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\u{b}',
                        '\\' | '"' | '\'' => escape,
                        'x' => self.code(2)?,
                        'u' => self.code(4)?,
                        'U' => self.code(8)?,
                        other => return Err(format!("unknown escape \\{other}")),
                    });
                }
                c => value.push(c),
            }
        }
    }

    /// The character with the code in the next hexadecimal digits.
    fn code(&mut self, digits: usize) -> Result<char, String> {
        let text = self.text.get(self.at..self.at + digits).ok_or("an escape is cut short")?;
        let code = u32::from_str_radix(text, 16).ok().and_then(char::from_u32);
        let code = code.ok_or_else(|| format!("{text:?} is no character's code"))?;
        self.at += digits;
        Ok(code)
    }

    fn space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }
}
