//! The content-addressed store.
//!
//! `Write` is in lockstep, one answer a request: the first message carries the ref and takes its lock (a second writer
//! gets `Unavailable`); every answer carries the offset and the running digest; `COMMIT` checks size and digest
//! (`FailedPrecondition`) and answers `AlreadyExists` for a known digest, which the caller's lease then holds as well.
//! A stream that ends without `COMMIT` keeps the ingest, so that it can be resumed.

super::port! {
    /// See the [module](self)'s documentation.
    Content, RemoteContent, ContentServer, MeteredContent:
    crate::containerd::content, content_client::ContentClient, content_server::Content / ContentServer;
    unary {
        info(InfoRequest) -> InfoResponse;
        update(UpdateRequest) -> UpdateResponse;
        delete(DeleteContentRequest) -> ();
        status(StatusRequest) -> StatusResponse;
        list_statuses(ListStatusesRequest) -> ListStatusesResponse;
        abort(AbortRequest) -> ();
    }
    server_stream {
        list(ListContentRequest) -> ListContentResponse as ListStream;
        read(ReadContentRequest) -> ReadContentResponse as ReadStream;
    }
    bidi {
        write(WriteContentRequest) -> WriteContentResponse as WriteStream;
    }
}
