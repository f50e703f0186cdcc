//! Published ports, and services that find each other by name.

use e2e::Wiring;
use e2e::docker::IMAGE;

use crate::Node;

e2e::wirings!(a_port_is_published, three_services_find_each_other);

async fn a_port_is_published(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    let serve = "echo page >/tmp/index.html; httpd -f -p 80 -h /tmp";
    docker.docker(&["run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", IMAGE, "sh", "-c", serve]);
    assert_eq!(docker.docker(&["port", "web", "80"]), "127.0.0.1:8080");
    assert_eq!(docker.page(8080, "").await, "page\n");
    docker.docker(&["restart", "--time", "0", "web"]);
    assert_eq!(docker.page(8080, "").await, "page\n");
    docker.docker(&["network", "disconnect", "bridge", "web"]);
    docker.docker(&["network", "connect", "bridge", "web"]);
    docker.docker(&["exec", "web", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"]);
    node.end().await;
}

/// As a compose file would have it: a network, aliases, a store that only the middle one asks, a front with a port.
async fn three_services_find_each_other(wiring: Wiring) {
    let Some(node) = Node::start(wiring).await else { return };
    let docker = &node.docker;
    docker.docker(&["network", "create", "back"]);
    docker.docker(&["network", "create", "front"]);
    let service = |name: &str, networks: &[&str], publish: &[&str], script: &str| {
        let mut args = vec!["create", "--name", name, "--network-alias", name, "--network", networks[0]];
        args.extend(publish);
        args.extend([IMAGE, "sh", "-c", script]);
        docker.docker(&args);
        for network in &networks[1..] {
            docker.docker(&["network", "connect", "--alias", name, network, name]);
        }
        docker.docker(&["start", name]);
    };
    let cgi = |from: &str| {
        format!(
            "mkdir -p /tmp/cgi-bin; printf '#!/bin/sh\\necho; echo {from}; wget -q -O - http://%s\\n' \"$NEXT\" \
             >/tmp/cgi-bin/index.cgi; chmod 755 /tmp/cgi-bin/index.cgi; httpd -f -p 80 -h /tmp"
        )
    };
    service("store", &["back"], &[], "echo stored >/tmp/index.html; httpd -f -p 80 -h /tmp");
    service("middle", &["back", "front"], &["-e", "NEXT=store/"], &cgi("middle"));
    let publish = ["-p", "127.0.0.1:8080:80", "-e", "NEXT=middle/cgi-bin/index.cgi"];
    service("edge", &["front"], &publish, &cgi("edge"));
    assert_eq!(docker.page(8080, "cgi-bin/index.cgi").await, "edge\nmiddle\nstored\n");
    let hidden = docker.try_docker(&["exec", "edge", "wget", "-T", "2", "-q", "-O", "-", "http://store/"]);
    assert!(!hidden.status.success(), "the networks are apart: {hidden:?}");
    docker.docker(&["restart", "--time", "0", "store"]);
    assert_eq!(docker.page(8080, "cgi-bin/index.cgi").await, "edge\nmiddle\nstored\n");
    docker.docker(&["rm", "--force", "store", "middle", "edge"]);
    docker.docker(&["network", "rm", "front", "back"]);
    node.end().await;
}
