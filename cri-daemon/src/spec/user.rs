//! Who a container's process runs as: names and numbers looked up in the image's `/etc/passwd` and `/etc/group`.
//!
//! The order is containerd's: the request's name, else its number, else the image's `USER`. The primary group is the
//! request's, else the image's, else the account's in `/etc/passwd`, else 0. Additional groups are the request's plus,
//! under the Merge policy, those that `/etc/group` lists the account in (its namesake apart, which is a primary group),
//! plus the primary group itself.

use std::io;
use std::path::Path;

use shared_proto::cri::v1::SupplementalGroupsPolicy;

use super::SpecError;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A resolved identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Sorted, without doubles; the primary group included.
    pub additional_gids: Vec<u32>,
}

/// What CRI and the image say about the user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRequest {
    /// `run_as_user`.
    pub uid: Option<i64>,
    /// `run_as_group`; needs one of the other two.
    pub gid: Option<i64>,
    /// `run_as_username`.
    pub username: String,
    pub supplemental_groups: Vec<i64>,
    /// `supplemental_groups_policy`, as CRI's number: Merge or Strict.
    pub policy: i32,
    /// `User` of the image's configuration: `name`, `uid`, `name:group`, `uid:gid`, …
    pub image_user: String,
}

/// Reads a file of the image by its absolute path.
pub type ReadRootfs<'a> = dyn FnMut(&Path) -> io::Result<Vec<u8>> + 'a;

/// An account from `/etc/passwd`.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// A line of `/etc/group`.
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Finds out who the process runs as. `read` is only called when a file is needed; a missing file is an empty one.
pub fn resolve(request: &UserRequest, read: &mut ReadRootfs) -> Result<User, SpecError> {
    let policy = SupplementalGroupsPolicy::try_from(request.policy).map_err(|_| {
        SpecError::invalid("supplemental_groups_policy", format!("no policy has the number {}", request.policy))
    })?;
    let wanted = Wanted::of(request)?;
    let accounts = passwd(read)?;
    let account = wanted.user.find(&accounts)?;
    let (uid, name) = (account.uid, account.name);
    let groups = match (&wanted.group, policy) {
        (Some(Name::Text(_)), _) | (_, SupplementalGroupsPolicy::Merge) => group(read)?,
        (_, SupplementalGroupsPolicy::Strict) => Vec::new(),
    };
    let gid = match &wanted.group {
        None => account.gid.unwrap_or(0),
        Some(Name::Number(gid)) => *gid,
        Some(Name::Text(wanted)) => match groups.iter().find(|g| g.name == *wanted) {
            Some(group) => group.gid,
            None => return Err(SpecError::NoSuchAccount { kind: "group", name: wanted.clone(), file: GROUP }),
        },
    };
    let mut additional = vec![gid];
    for gid in &request.supplemental_groups {
        additional.push(number("supplemental_groups", *gid)?);
    }
    if policy == SupplementalGroupsPolicy::Merge && !name.is_empty() {
        additional.extend(groups.iter().filter(|g| g.name != name && g.members.contains(&name)).map(|g| g.gid));
    }
    additional.sort_unstable();
    additional.dedup();
    Ok(User { uid, gid, additional_gids: additional })
}

/// A user or group as it was named.
enum Name {
    Number(u32),
    Text(String),
}

struct Wanted {
    user: Name,
    group: Option<Name>,
}

impl Wanted {
    fn of(request: &UserRequest) -> Result<Self, SpecError> {
        let gid = request.gid.map(|gid| number("run_as_group", gid)).transpose()?.map(Name::Number);
        let named = !request.username.is_empty() || request.uid.is_some();
        if gid.is_some() && !named {
            return Err(SpecError::invalid("run_as_group", "needs run_as_user or run_as_username"));
        }
        if !request.username.is_empty() {
            return Ok(Self { user: Name::parse(&request.username), group: gid });
        }
        if let Some(uid) = request.uid {
            return Ok(Self { user: Name::Number(number("run_as_user", uid)?), group: gid });
        }
        let (user, group) = match request.image_user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (request.image_user.as_str(), None),
        };
        let user = if user.is_empty() { Name::Number(0) } else { Name::parse(user) };
        Ok(Self { user, group: group.filter(|g| !g.is_empty()).map(Name::parse) })
    }
}

struct Found {
    uid: u32,
    /// Empty when the account is only a number.
    name: String,
    gid: Option<u32>,
}

impl Name {
    fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Name::Text(text.to_owned()), Name::Number)
    }

    fn find(&self, accounts: &[Account]) -> Result<Found, SpecError> {
        let found = match self {
            Name::Number(uid) => accounts.iter().find(|a| a.uid == *uid),
            Name::Text(name) => accounts.iter().find(|a| a.name == *name),
        };
        match (found, self) {
            (Some(a), _) => Ok(Found { uid: a.uid, name: a.name.clone(), gid: Some(a.gid) }),
            (None, Name::Number(uid)) => Ok(Found { uid: *uid, name: String::new(), gid: None }),
            (None, Name::Text(name)) => {
                Err(SpecError::NoSuchAccount { kind: "user", name: name.clone(), file: PASSWD })
            }
        }
    }
}

fn number(field: &'static str, value: i64) -> Result<u32, SpecError> {
    u32::try_from(value).map_err(|_| SpecError::invalid(field, format!("{value} is no id of a user or group")))
}

fn text(read: &mut ReadRootfs, path: &str) -> Result<String, SpecError> {
    match read(Path::new(path)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(SpecError::Rootfs { path: path.into(), source }),
    }
}

/// Lines that do not parse are skipped, as by every reader of these files.
fn passwd(read: &mut ReadRootfs) -> Result<Vec<Account>, SpecError> {
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        Some(Account { name, uid, gid: fields.next()?.parse().ok()? })
    };
    Ok(text(read, PASSWD)?.lines().filter_map(parse).collect())
}

fn group(read: &mut ReadRootfs) -> Result<Vec<Group>, SpecError> {
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?.to_owned();
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or("").split(',').filter(|m| !m.is_empty()).map(String::from).collect();
        Some(Group { name, gid, members })
    };
    Ok(text(read, GROUP)?.lines().filter_map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nweb:x:1000:1001::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:root\nweb:x:1001:web\naudio:x:63:web,root\nvideo:x:64:web\nempty\n";

    fn files(path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some(PASSWD) => Ok(ACCOUNTS.into()),
            Some(GROUP) => Ok(GROUPS.into()),
            _ => panic!("{} was asked for", path.display()),
        }
    }

    fn ok(request: UserRequest) -> (u32, u32, Vec<u32>) {
        let user = resolve(&request, &mut files).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    fn image(user: &str) -> UserRequest {
        UserRequest { image_user: user.into(), ..Default::default() }
    }

    #[test]
    fn the_image_names_the_user() {
        assert_eq!(ok(image("")), (0, 0, vec![0, 63]));
        assert_eq!(ok(image("web")), (1000, 1001, vec![63, 64, 1001]));
        assert_eq!(ok(image("1000")), (1000, 1001, vec![63, 64, 1001]), "a number is looked up as well");
        assert_eq!(ok(image("web:video")), (1000, 64, vec![63, 64]));
        assert_eq!(ok(image("7:8")), (7, 8, vec![8]));
        assert_eq!(ok(image("7")), (7, 0, vec![0]));
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let request = UserRequest { uid: Some(1000), ..image("root") };
        assert_eq!(ok(request.clone()), (1000, 1001, vec![63, 64, 1001]));
        assert_eq!(ok(UserRequest { gid: Some(5), ..request.clone() }), (1000, 5, vec![5, 63, 64]));
        assert_eq!(ok(UserRequest { username: "root".into(), ..request }), (0, 0, vec![0, 63]));
        let groups = vec![63, 9, 9];
        assert_eq!(
            ok(UserRequest { supplemental_groups: groups, ..image("web") }),
            (1000, 1001, vec![9, 63, 64, 1001])
        );
    }

    #[test]
    fn strict_takes_only_what_was_asked_for() {
        let policy = SupplementalGroupsPolicy::Strict.into();
        let strict = UserRequest { policy, supplemental_groups: vec![9], ..image("web") };
        assert_eq!(ok(strict), (1000, 1001, vec![9, 1001]));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let fails = |request| resolve(&request, &mut files).unwrap_err().to_string();
        assert_eq!(fails(image("nobody")), r#"user "nobody" is not in the image's /etc/passwd"#);
        assert_eq!(fails(image("web:nogroup")), r#"group "nogroup" is not in the image's /etc/group"#);
        let group = UserRequest { gid: Some(5), ..image("web") };
        assert_eq!(fails(group), "run_as_group: needs run_as_user or run_as_username");
        let negative = UserRequest { uid: Some(-1), ..image("") };
        assert_eq!(fails(negative), "run_as_user: -1 is no id of a user or group");
        assert!(fails(UserRequest { policy: 7, ..image("") }).starts_with("supplemental_groups_policy"));
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        let mut none = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let user = resolve(&image("7"), &mut none).unwrap();
        assert_eq!(user, User { uid: 7, gid: 0, additional_gids: vec![0] });
        assert!(resolve(&image("web"), &mut none).is_err());
        let mut broken = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(resolve(&image(""), &mut broken), Err(SpecError::Rootfs { .. })));
    }
}
