//! The part of Go's template language that `conf_template` files use.
//!
//! Values: `.PodCIDR`, `.PodCIDRRanges`, `.Routes` (all with or without `$`), variables, `.` inside a range,
//! `len LIST` and `index LIST NUMBER`. Actions: `{{value}}`,
//! `{{range value}}`, `{{range $x := value}}`, `{{range $i, $x := value}}`, `{{if value}}`, `{{else}}`, `{{end}}`,
//! comments, and `{{-`/`-}}`. Anything else is an error.

use std::collections::BTreeMap;

/// What a template may name.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Text(String),
    Number(usize),
    List(Vec<String>),
}

impl Item {
    fn truth(&self) -> bool {
        match self {
            Item::Text(text) => !text.is_empty(),
            Item::Number(number) => *number != 0,
            Item::List(list) => !list.is_empty(),
        }
    }
}

enum Token<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// Renders for CIDRs of a pod network; the first one is `.PodCIDR`. There is one default route a family, IPv4's first.
pub(super) fn render(template: &str, cidrs: &[String]) -> Result<String, String> {
    let routes = [(false, "0.0.0.0/0"), (true, "::/0")];
    let routed = routes.iter().filter(|(six, _)| cidrs.iter().any(|cidr| cidr.contains(':') == *six));
    let mut scope = BTreeMap::from([
        (".PodCIDR".to_owned(), Item::Text(cidrs.first().cloned().unwrap_or_default())),
        (".PodCIDRRanges".to_owned(), Item::List(cidrs.to_vec())),
        (".Routes".to_owned(), Item::List(routed.map(|(_, route)| (*route).to_owned()).collect())),
    ]);
    let tokens = tokens(template)?;
    let mut out = String::new();
    match block(&tokens, 0, &mut scope, Some(&mut out))? {
        (_, Stop::End) => Ok(out),
        (_, Stop::Action(action)) => Err(format!("{{{{{action}}}}} has no beginning")),
    }
}

/// What ended a block: the end of the file, or `end`/`else`.
#[derive(PartialEq)]
enum Stop<'a> {
    End,
    Action(&'a str),
}

fn tokens(template: &str) -> Result<Vec<Token<'_>>, String> {
    let mut out = Vec::new();
    let mut rest = template;
    while let Some((mut text, tail)) = rest.split_once("{{") {
        let (action, mut tail) = tail.split_once("}}").ok_or("an action has no end: \"}}\" is missing")?;
        let mut action = action;
        if let Some(trimmed) = action.strip_prefix("- ") {
            (action, text) = (trimmed, text.trim_end());
        }
        if let Some(trimmed) = action.strip_suffix(" -") {
            (action, tail) = (trimmed, tail.trim_start());
        }
        out.extend([Token::Text(text), Token::Action(action.trim())]);
        rest = tail;
    }
    out.push(Token::Text(rest));
    Ok(out)
}

type Scope = BTreeMap<String, Item>;

/// Renders from token `at` to the end of its block; without `out` it only finds that end.
fn block<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    scope: &mut Scope,
    mut out: Option<&mut String>,
) -> Result<(usize, Stop<'a>), String> {
    while let Some(token) = tokens.get(at) {
        at += 1;
        let action = match token {
            Token::Text(text) => {
                if let Some(out) = &mut out {
                    out.push_str(text);
                }
                continue;
            }
            Token::Action(action) => *action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" | "else" => return Ok((at, Stop::Action(action))),
            _ if word.starts_with("/*") => {}
            "if" => {
                let yes = out.is_some() && value(rest, scope)?.truth();
                at = branches(tokens, at, scope, out.as_deref_mut(), if yes { Turn::Once } else { Turn::Else })?;
            }
            "range" => {
                let (names, list) = match rest.split_once(":=") {
                    Some((names, list)) => (names.split(',').map(|name| name.trim().to_owned()).collect(), list),
                    None => (Vec::new(), rest),
                };
                let turn = match out.is_some() {
                    true => match value(list, scope)? {
                        Item::List(items) if !items.is_empty() => Turn::Each(names, items),
                        Item::List(_) => Turn::Else,
                        Item::Text(_) | Item::Number(_) => return Err(format!("{{{{{action}}}}} is over no list")),
                    },
                    false => Turn::Else,
                };
                at = branches(tokens, at, scope, out.as_deref_mut(), turn)?;
            }
            _ => {
                if let Some(out) = &mut out {
                    match value(action, scope)? {
                        Item::Text(text) => out.push_str(&text),
                        Item::Number(number) => out.push_str(&number.to_string()),
                        Item::List(list) => out.push_str(&format!("[{}]", list.join(" "))),
                    }
                }
            }
        }
    }
    Ok((at, Stop::End))
}

/// Which part of `if … else … end` or `range … else … end` is rendered.
enum Turn {
    Once,
    Else,
    Each(Vec<String>, Vec<String>),
}

/// Renders a conditional or a loop whose body begins at `start`; where it ends.
fn branches(
    tokens: &[Token],
    start: usize,
    scope: &mut Scope,
    mut out: Option<&mut String>,
    turn: Turn,
) -> Result<usize, String> {
    let (mut at, mut stop) = block(tokens, start, scope, None)?;
    match &turn {
        Turn::Once => {
            block(tokens, start, scope, out.as_deref_mut())?;
        }
        Turn::Each(names, items) => {
            for (index, item) in items.iter().enumerate() {
                let mut inner = scope.clone();
                inner.insert(".".into(), Item::Text(item.clone()));
                match names.as_slice() {
                    [] => {}
                    [name] => drop(inner.insert(name.clone(), Item::Text(item.clone()))),
                    [number, name] => {
                        inner.insert(number.clone(), Item::Number(index));
                        inner.insert(name.clone(), Item::Text(item.clone()));
                    }
                    _ => return Err("a range has at most two variables".into()),
                }
                block(tokens, start, &mut inner, out.as_deref_mut())?;
            }
        }
        Turn::Else => {}
    }
    if stop == Stop::Action("else") {
        let otherwise = if matches!(turn, Turn::Else) { out } else { None };
        (at, stop) = block(tokens, at, scope, otherwise)?;
    }
    match stop {
        Stop::Action("end") => Ok(at),
        Stop::Action(action) => Err(format!("{{{{{action}}}}} is not supported here")),
        Stop::End => Err("an {{end}} is missing".into()),
    }
}

/// What an expression stands for: a name, `len LIST` or `index LIST NUMBER`.
fn value(expression: &str, scope: &Scope) -> Result<Item, String> {
    let unsupported = || format!("{{{{{}}}}} is not supported", expression.trim());
    // `$` is what the template was given, wherever it is asked for.
    let named = |name: &str| scope.get(name.strip_prefix('$').filter(|rest| rest.starts_with('.')).unwrap_or(name));
    let words: Vec<&str> = expression.split_whitespace().collect();
    match words.as_slice() {
        [name] => named(name).cloned().ok_or_else(unsupported),
        ["len", list] => match named(list) {
            Some(Item::List(list)) => Ok(Item::Number(list.len())),
            Some(Item::Text(_) | Item::Number(_)) | None => Err(unsupported()),
        },
        ["index", list, at] => match (named(list), at.parse::<usize>()) {
            (Some(Item::List(list)), Ok(at)) => {
                let found = list.get(at).cloned().map(Item::Text);
                found.ok_or_else(|| format!("{{{{{}}}}}: there are only {}", expression.trim(), list.len()))
            }
            (Some(_) | None, _) => Err(unsupported()),
        },
        _ => Err(unsupported()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_people_use() {
        let cidrs = ["10.0.0.0/24", "fd00::/64"].map(String::from);
        let of = |template| render(template, &cidrs).unwrap();
        assert_eq!(of("a {{.PodCIDR}} b"), "a 10.0.0.0/24 b");
        let ranges = r#"[{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}]"#;
        assert_eq!(of(ranges), r#"[[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]"#);
        assert_eq!(of("{{range .Routes}}<{{.}}>{{end}}"), "<0.0.0.0/0><::/0>");
        assert_eq!(of("{{range .Routes}}{{$.PodCIDR}} {{end}}"), "10.0.0.0/24 10.0.0.0/24 ");
        assert_eq!(of("{{len .PodCIDRRanges}} {{index .PodCIDRRanges 1}}"), "2 fd00::/64");
        let many = ["fd00::/64", "10.0.0.0/24", "10.0.1.0/24"].map(String::from);
        assert_eq!(render("{{range .Routes}}<{{.}}>{{end}}", &many).unwrap(), "<0.0.0.0/0><::/0>", "one a family");
        assert_eq!(of("x  {{- if .Routes -}}  y {{- else}}n{{end}}"), "xy");
        assert_eq!(of("{{/* nothing */}}z"), "z");
        assert_eq!(render("{{range .Routes}}a{{else}}none{{end}}", &[]).unwrap(), "none");
        for bad in
            ["{{.Other}}", "{{range .Routes}}", "{{end}}", "{{.PodCIDR", "{{printf .PodCIDR}}", "{{index .Routes 2}}"]
        {
            assert!(render(bad, &cidrs).is_err(), "{bad}");
        }
    }
}
