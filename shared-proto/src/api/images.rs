//! Image records: names that point at descriptors.
//!
//! `Delete` with `sync` returns when what the image alone kept is gone from disk.

super::port! {
    /// See the [module](self)'s documentation.
    Images, RemoteImages, ImagesServer, MeteredImages:
    crate::containerd::images, images_client::ImagesClient, images_server::Images / ImagesServer;
    unary {
        get(GetImageRequest) -> GetImageResponse;
        list(ListImagesRequest) -> ListImagesResponse;
        create(CreateImageRequest) -> CreateImageResponse;
        update(UpdateImageRequest) -> UpdateImageResponse;
        delete(DeleteImageRequest) -> ();
    }
}
