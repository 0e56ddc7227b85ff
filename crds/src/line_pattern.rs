//! Regular expressions for lines of logs, as the patterns that the script language of the log shipper has: it knows neither
//! alternatives nor repeated groups, which become several patterns, or are refused.

use regex_syntax::{
    ParserBuilder,
    hir::{Class, ClassBytes, Hir, HirKind, Look, Repetition},
};

/// Most patterns that one expression becomes.
const MOST: usize = 64;
/// Most times that one character is counted.
const MOST_TIMES: u32 = 64;
/// Most pieces of all patterns of an expression.
const MOST_PIECES: usize = 2000;
/// Most characters of a pattern that may be missing: each is tried both ways.
const MOST_OPTIONAL: usize = 8;

/// A pattern of Lua.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePattern {
    /// What is in every line that fits, for a quick look before; it may be empty.
    pub literal: Vec<u8>,
    /// The pattern.
    pub pattern: Vec<u8>,
}

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// This character.
    Byte(u8),
    /// The beginning of the line.
    Begin,
    /// The end of the line.
    End,
    /// Where a word begins or ends.
    Edge,
    /// This set of characters, so often: any number of times, or once at most.
    Counted(Vec<u8>, u8),
    /// One of a set of characters, as Lua writes it.
    Set(Vec<u8>),
}

/// The patterns of which one fits wherever a regular expression does. Characters are bytes: `\w`, `\d` and `\s` are those
/// of ASCII.
///
/// # Errors
/// What the expression has that no pattern can say, or why it is none.
pub fn line_patterns(expression: &str) -> Result<Vec<LinePattern>, String> {
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).build();
    let parsed = parser.parse(expression).map_err(|error| {
        let last = error.to_string();
        last.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    alternatives(&parsed)?.iter().map(|pieces| written(pieces)).collect()
}

/// What an expression fits, each way as pieces one after the other.
fn alternatives(hir: &Hir) -> Result<Vec<Vec<Piece>>, String> {
    let made = match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Literal(literal) => vec![literal.0.iter().copied().map(Piece::Byte).collect()],
        HirKind::Class(class) => vec![vec![Piece::Set(set(class)?)]],
        HirKind::Look(Look::Start) => vec![vec![Piece::Begin]],
        HirKind::Look(Look::End) => vec![vec![Piece::End]],
        HirKind::Look(Look::WordAscii) => vec![vec![Piece::Edge]],
        HirKind::Look(_) => return Err("this kind of anchor".to_owned()),
        HirKind::Repetition(repetition) => repeated(repetition)?,
        HirKind::Capture(capture) => alternatives(&capture.sub)?,
        HirKind::Concat(parts) => {
            let mut ways = vec![Vec::new()];
            for part in parts {
                let next = alternatives(part)?;
                let joined = |way: &Vec<Piece>| {
                    next.iter().map(|more| [way.as_slice(), more].concat()).collect::<Vec<_>>()
                };
                ways = ways.iter().flat_map(joined).collect();
                few(&ways)?;
            }
            ways
        }
        HirKind::Alternation(parts) => {
            let ways = parts.iter().map(alternatives).collect::<Result<Vec<_>, _>>()?;
            ways.concat()
        }
    };
    few(&made)?;
    Ok(made)
}

fn few(ways: &[Vec<Piece>]) -> Result<(), String> {
    if ways.len() > MOST {
        return Err(format!("more than {MOST} alternatives"));
    }
    let pieces: usize = ways.iter().map(Vec::len).sum();
    if pieces > MOST_PIECES { Err(format!("more than {MOST_PIECES} characters in all")) } else { Ok(()) }
}

/// Something several times: one character as Lua counts it, anything else as often as it is said.
fn repeated(Repetition { min, max, greedy, sub }: &Repetition) -> Result<Vec<Vec<Piece>>, String> {
    let ways = alternatives(sub)?;
    if min.max(&max.unwrap_or(0)) > &MOST_TIMES {
        return Err(format!("something more than {MOST_TIMES} times"));
    }
    let single = match ways.as_slice() {
        [way] => match way.as_slice() {
            [Piece::Byte(byte)] => Some(escaped(*byte)),
            [Piece::Set(set)] => Some(set.clone()),
            _ => None,
        },
        _ => None,
    };
    if let (Some(one), [way]) = (single, ways.as_slice()) {
        let counted = |sign: u8| Piece::Counted(one.clone(), sign);
        let mut pieces: Vec<Piece> = (0..*min).flat_map(|_| way.clone()).collect();
        match max {
            None => pieces.push(counted(if *greedy { b'*' } else { b'-' })),
            Some(max) => pieces.extend((*min..*max).map(|_| counted(b'?'))),
        }
        return Ok(vec![pieces]);
    }
    let max = max.ok_or("a group that is repeated any number of times")?;
    let mut all = Vec::new();
    for times in *min..=max {
        let mut made = vec![Vec::new()];
        for _ in 0..times {
            let joined = |before: &Vec<Piece>| {
                ways.iter().map(|more| [before.as_slice(), more].concat()).collect::<Vec<_>>()
            };
            made = made.iter().flat_map(joined).collect();
            few(&made)?;
        }
        all.extend(made);
    }
    // The longest first, as a pattern takes what it can.
    all.reverse();
    Ok(all)
}

/// A set of characters, as Lua writes one.
fn set(class: &Class) -> Result<Vec<u8>, String> {
    let bytes: Option<ClassBytes> = match class {
        Class::Bytes(class) => Some(class.clone()),
        Class::Unicode(class) => class.to_byte_class(),
    };
    let Some(mut class) = bytes else { return Err("characters beyond ASCII in brackets".to_owned()) };
    let has_last = class.ranges().last().is_some_and(|range| range.end() == u8::MAX);
    if has_last {
        class.negate();
    }
    if class.ranges().is_empty() {
        return Ok(if has_last { b"[%z\x01-\xff]".to_vec() } else { return Err("an empty set".to_owned()) });
    }
    let mut text = if has_last { b"[^".to_vec() } else { b"[".to_vec() };
    for range in class.ranges() {
        let mut first = range.start();
        loop {
            // As far as nothing has a meaning of its own.
            let is_special = |byte: &u8| byte.is_ascii_punctuation() || *byte == 0;
            let last = (first..=range.end()).take_while(|byte| !is_special(byte)).last();
            let end = match last {
                Some(last) if last > first + 1 => {
                    text.extend([first, b'-', last]);
                    last
                }
                _ => {
                    text.extend(escaped(first));
                    first
                }
            };
            if end == range.end() {
                break;
            }
            first = end + 1;
        }
    }
    text.push(b']');
    Ok(text)
}

/// A character that stands for itself.
fn escaped(byte: u8) -> Vec<u8> {
    match byte {
        0 => b"%z".to_vec(),
        _ if byte.is_ascii_punctuation() => vec![b'%', byte],
        _ => vec![byte],
    }
}

/// Whether pieces begin with what is repeated any number of times: such as `[a-z]+`, which is one of the set, and more.
fn begins_with_any(pieces: &[Piece]) -> bool {
    let rest = pieces.iter().skip_while(|piece| matches!(piece, Piece::Set(_) | Piece::Counted(_, b'?')));
    let is_any = matches!(rest.clone().next(), Some(Piece::Counted(_, b'*' | b'-')));
    // What is all of the pattern takes what it finds.
    is_any && rest.count() > 1
}

/// Pieces as a pattern, with the longest run of characters in it.
fn written(pieces: &[Piece]) -> Result<LinePattern, String> {
    let (mut pattern, mut run, mut literal) = (Vec::new(), Vec::new(), Vec::new());
    let is_optional = |piece: &&Piece| matches!(piece, Piece::Counted(_, b'?'));
    if pieces.iter().filter(is_optional).count() > MOST_OPTIONAL {
        return Err(format!(
            "more than {MOST_OPTIONAL} characters that may be missing; `{{20,}}` has no end"
        ));
    }
    // From each character of a line it would look for the end again.
    if begins_with_any(pieces) {
        return Err(
            "that it begins with something that is repeated any number of times; put `\\b` before it"
                .to_owned(),
        );
    }
    let mut fits_nothing = true;
    for (place, piece) in pieces.iter().enumerate() {
        let is_last = place == pieces.len() - 1;
        match piece {
            Piece::Begin if place == 0 => pattern.push(b'^'),
            Piece::End if is_last => pattern.push(b'$'),
            Piece::Begin | Piece::End => return Err("an anchor in the middle".to_owned()),
            Piece::Edge if place == 0 => pattern.extend(b"%f[%w_]"),
            Piece::Edge if is_last => pattern.extend(b"%f[^%w_]"),
            Piece::Edge => return Err("the edge of a word in the middle".to_owned()),
            Piece::Byte(byte) => {
                pattern.extend(escaped(*byte));
                run.push(*byte);
                fits_nothing = false;
            }
            Piece::Set(set) => {
                pattern.extend(set);
                run.clear();
                fits_nothing = false;
            }
            Piece::Counted(one, sign) => {
                pattern.extend(one);
                pattern.push(*sign);
                run.clear();
            }
        }
        if run.len() > literal.len() {
            literal.clone_from(&run);
        }
    }
    if fits_nothing {
        return Err("that it fits everywhere, also where nothing is".to_owned());
    }
    Ok(LinePattern { literal, pattern })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_becomes_patterns_of_the_same_meaning() {
        for (expression, expected) in [
            ("password=[^ ]+", &[("password=", "password%=[^ ][^ ]*")][..]),
            ("://[^/:@]+:", &[("://", "%:%/%/[^%/%:%@][^%/%:%@]*%:")]),
            (r"\d{2,4}", &[("", "[0-9][0-9][0-9]?[0-9]?")]),
            ("(?i)ab", &[("", "[Aa][Bb]")]),
            ("(cat|dog)s?$", &[("cat", "cats?$"), ("dog", "dogs?$")]),
            (r"^a\.b.*?c", &[("a.b", "^a%.b[^\n]-c")]),
            (r"(x-y){2}", &[("x-yx-y", "x%-yx%-y")]),
            (r"(ab)?c", &[("abc", "abc"), ("c", "c")]),
            (r"\bid", &[("id", "%f[%w_]id")]),
            (r"\b[a-z.]+@\w+\b", &[("@", "%f[%w_][%.a-z][%.a-z]*%@[0-9A-Z%_a-z][0-9A-Z%_a-z]*%f[^%w_]")]),
            ("[a-z]+", &[("", "[a-z][a-z]*")]),
            (r"[\w%^\]-]", &[("", "[%%%-0-9A-Z%]%^%_a-z]")]),
            ("ü+", &[("\u{fc}", "\u{fc}")][..0]),
        ] {
            let found = line_patterns(expression);
            if expected.is_empty() {
                assert!(found.is_err(), "{expression}: {found:?}");
                continue;
            }
            let expected: Vec<LinePattern> = expected
                .iter()
                .map(|(literal, pattern)| LinePattern {
                    literal: (*literal).into(),
                    pattern: (*pattern).into(),
                })
                .collect();
            let words = |all: &[LinePattern]| {
                all.iter().map(|one| String::from_utf8_lossy(&one.pattern).into_owned()).collect::<Vec<_>>()
            };
            let found = found.unwrap();
            assert_eq!(words(&found), words(&expected), "{expression}");
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn what_no_pattern_can_say_is_told() {
        for (expression, words) in [
            ("(ab)*", "a group that is repeated any number of times"),
            ("a*", "fits everywhere"),
            ("a$b", "anchor in the middle"),
            ("[ab", "unclosed character class"),
            ("a{65}", "more than 64 times"),
            ("(ab|bc|cd|de|ef)(ab|bc|cd|de|ef)(ab|bc|cd|de|ef)", "more than 64 alternatives"),
            ("", "fits everywhere"),
            ("a{20,64}", "more than 8 characters that may be missing"),
            ("[a-z]+@", "repeated any number of times; put"),
            (r"a\bb", "edge of a word in the middle"),
            ("((((a{64}){64}){64}){64}){64}", "characters in all"),
        ] {
            let told = line_patterns(expression).unwrap_err();
            assert!(told.contains(words), "{expression}: {told}");
        }
    }
}
