//! ListImages: all images, from memory. A filter by name is honoured; the kubelet sends none.

use shared_proto::Result;
use shared_proto::cri::v1;

use super::index::Listed;
use crate::Cri;

impl Cri {
    pub async fn list_images(&self, req: v1::ListImagesRequest) -> Result<v1::ListImagesResponse> {
        let wanted = req.filter.and_then(|filter| filter.image).map(|spec| spec.image).filter(|i| !i.is_empty());
        let listed = match wanted {
            None => self.0.images.list(),
            Some(image) => self.0.images.find(&image)?.into_iter().collect(),
        };
        Ok(v1::ListImagesResponse { images: listed.into_iter().map(to_cri).collect() })
    }
}

pub(super) fn to_cri(listed: Listed) -> v1::Image {
    let Listed { image, tags, digests, pinned } = listed;
    let (uid, username) = user(image.config.config().as_ref().and_then(|c| c.user().as_deref()).unwrap_or_default());
    v1::Image {
        id: image.id.clone(),
        repo_tags: tags,
        repo_digests: digests,
        size: image.size,
        uid,
        username,
        spec: None,
        pinned,
    }
}

/// An image's user is `USER` or `USER:GROUP`; the kubelet wants a number apart from a name.
fn user(user: &str) -> (Option<v1::Int64Value>, String) {
    let name = user.split(':').next().unwrap_or_default();
    match name.parse() {
        Ok(value) => (Some(v1::Int64Value { value }), String::new()),
        Err(_) => (None, name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names() {
        assert_eq!(user(""), (None, String::new()));
        assert_eq!(user("nobody:nogroup"), (None, "nobody".into()));
        assert_eq!(user("65534:0"), (Some(v1::Int64Value { value: 65534 }), String::new()));
    }
}
