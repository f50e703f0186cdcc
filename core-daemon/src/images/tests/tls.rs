//! TLS as `hosts.toml` configures it, against docker-registry with certificates made on the spot.

use std::path::Path;
use std::process::Command;

use shared_proto::{Code, Error};

use super::anonymous;
use super::local::{DockerRegistry, Image};

/// A root, a server's certificate for 127.0.0.1 and a client's, made by openssl.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 30 -subj /CN=test-root"));
    std::fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    std::fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for name in ["server", "client"] {
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile {name}.ext -out {name}.crt"
        ));
    }
}

#[tokio::test]
async fn roots_client_certificates_and_their_absence() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let both =
        [std::fs::read(dir.path().join("client.crt")).unwrap(), std::fs::read(dir.path().join("client.key")).unwrap()];
    std::fs::write(dir.path().join("both.pem"), both.concat()).unwrap();

    let image = Image::of(&[&[("a", b"a")]]);
    let plain = DockerRegistry::start(false).await;
    plain.push("x", "1", &image).await;
    let (open, mutual) = (plain.over_tls(dir.path(), false).await, plain.over_tls(dir.path(), true).await);

    let (ca, cert, key, pem) = (at("ca.crt"), at("client.crt"), at("client.key"), at("both.pem"));
    let pair = format!("ca = \"{ca}\"\nclient = [[\"{cert}\", \"{key}\"]]");
    for (server, settings, works) in [
        (&open, format!("ca = \"{ca}\""), true),
        (&open, "skip_verify = true".to_owned(), true),
        (&open, String::new(), false),
        (&mutual, pair, true),
        (&mutual, format!("ca = [\"{ca}\"]\nclient = \"{pem}\""), true),
        (&mutual, format!("ca = \"{ca}\""), false),
    ] {
        let text = format!("server = \"https://{}\"\n{settings}\n", server.name());
        match anonymous("x.test/x:1", &text).resolve().await {
            Ok(found) => assert!(works && found.digest == image.digest(), "{settings}"),
            Err(e) => {
                let e = Error::from(e);
                assert!(!works && e.code == Code::Unavailable, "{settings}: {e}");
            }
        }
    }

    let text = format!("server = \"https://{}\"\nca = \"{}\"\n", open.name(), at("missing.crt"));
    let e = Error::from(anonymous("x.test/x:1", &text).resolve().await.unwrap_err());
    assert!(e.code == Code::FailedPrecondition && e.message.contains("missing.crt"), "{e}");
}
