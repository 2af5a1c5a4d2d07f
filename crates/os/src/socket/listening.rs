//! Who listens in this network namespace: the abstract names of all sockets that take connections.
//!
//! The system lists them for everybody, whoever they belong to; who really is behind a name is seen when one connects. The
//! invariant: what is found is bounded, however many sockets the machine has.

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::OsError;

const LIST: &str = "/proc/net/unix";
/// How many lines are looked at.
const MOST_LINES: usize = 1 << 20;
/// The flag of a socket that takes connections (`__SO_ACCEPTCON`), and the type of those that carry messages
/// (`SOCK_SEQPACKET`), as the list prints them.
const LISTENS: &str = "00010000";
const CARRIES_MESSAGES: &str = "0005";

/// The abstract names that begin with `start` at which somebody listens for connections that carry messages; sorted.
///
/// # Errors
/// If the system does not show its list of sockets.
pub fn listening(start: &str) -> Result<Vec<String>, OsError> {
    let list = File::open(LIST).map_err(|error| OsError::from_io("open", &error, LIST))?;
    // Others may choose names that are no text: such a line is none of ours, and hides none.
    let lines = BufReader::new(list).split(b'\n').take(MOST_LINES).map_while(Result::ok);
    let lines = lines.filter_map(|line| String::from_utf8(line).ok());
    let mut names: Vec<String> =
        lines.filter_map(|line| name_in(&line).filter(|name| name.starts_with(start))).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The abstract name in a line of the list, if somebody listens there.
fn name_in(line: &str) -> Option<String> {
    // Num RefCount Protocol Flags Type St Inode Path
    let mut fields = line.split_ascii_whitespace().skip(3);
    let is_meant = fields.next() == Some(LISTENS) && fields.next() == Some(CARRIES_MESSAGES);
    let path = fields.nth(2).filter(|_| is_meant)?;
    path.strip_prefix('@').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Address, Connection, Listener};

    #[test]
    fn a_line_of_the_list_is_understood() {
        let line = "000000002c65a933: 00000002 00000000 00010000 0005 01 2317359 @unisono/12ab";
        assert_eq!(name_in(line).as_deref(), Some("unisono/12ab"));
        for other in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "000000002c65a933: 00000002 00000000 00010000 0001 01 2317359 @stream",
            "000000002c65a933: 00000002 00000000 00000000 0005 03 2317359 @connected",
            "000000002c65a933: 00000002 00000000 00010000 0005 01 2317359 /a/file",
            "000000002c65a933: 00000002 00000000 00010000 0005 01 2317359",
            "",
        ] {
            assert_eq!(name_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_listener_is_listed_as_long_as_it_listens() {
        let name = format!("unisono-test-listening/{}", std::process::id());
        assert_eq!(listening(&name).unwrap(), Vec::<String>::new());
        let address = Address::Abstract(name.clone().into_bytes());
        let listener = Listener::bind(&address).unwrap();
        let _connection = Connection::connect(&address, None).unwrap();
        assert_eq!(listening(&name).unwrap(), std::slice::from_ref(&name));
        let garbage = Address::Abstract([b"\xff\n\xfe", name.as_bytes()].concat());
        let _strange = Listener::bind(&garbage).unwrap();
        assert_eq!(listening(&name).unwrap(), std::slice::from_ref(&name));
        drop(listener);
        assert_eq!(listening(&name).unwrap(), Vec::<String>::new());
    }
}
