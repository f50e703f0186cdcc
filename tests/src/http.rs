//! A page, asked for from the host.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::eventually;

/// The body of a page; tries for as long as `limit`, each time for two seconds at most.
pub async fn get(host: &str, port: u16, limit: Duration) -> String {
    eventually(format!("GET {host} port {port}"), limit, || async {
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        let limited = tokio::time::timeout(Duration::from_secs(2), exchange).await.map_err(|e| e.to_string())?;
        let text = limited.map_err(|e| e.to_string())?;
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or(text)
    })
    .await
}
