//! Moves images between registries, archives and the image store, inside the core: the bytes never cross the seam.
//!
//! Source and destination are `Any`s of [`crate::containerd::transfer_types`]; progress and credentials travel over
//! [`crate::api::Streaming`].

super::port! {
    /// See the [module](self)'s documentation.
    Transfer, RemoteTransfer, TransferServer, MeteredTransfer:
    crate::containerd::transfer, transfer_client::TransferClient, transfer_server::Transfer / TransferServer;
    unary {
        transfer(TransferRequest) -> ();
    }
}
