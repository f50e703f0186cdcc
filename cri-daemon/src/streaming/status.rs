//! What a client is told at the end of a command: a Kubernetes `Status` as JSON, or just text in older protocols.

use serde_json::json;
use shared_proto::Error;

/// How exec or attach ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The command ended with another code than 0.
    Exit(i32),
    Failed(Error),
}

/// The form that the negotiated protocol wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Before v4: text, and only when something is wrong.
    Text,
    /// v4 and later.
    Json,
}

impl Outcome {
    /// What goes over the error channel; empty = nothing.
    pub fn encode(&self, form: Form) -> String {
        match (form, self) {
            (Form::Text, Outcome::Success) => String::new(),
            (Form::Text, Outcome::Exit(_) | Outcome::Failed(_)) => self.message(),
            (Form::Json, Outcome::Success) => json!({ "metadata": {}, "status": "Success" }).to_string(),
            (Form::Json, Outcome::Exit(code)) => json!({
                "metadata": {}, "status": "Failure", "message": self.message(), "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            })
            .to_string(),
            (Form::Json, Outcome::Failed(e)) => json!({
                "metadata": {}, "status": "Failure", "message": self.message(), "reason": "InternalError",
                "details": { "causes": [{ "message": e.message }] }, "code": 500,
            })
            .to_string(),
        }
    }

    fn message(&self) -> String {
        match self {
            Outcome::Success => String::new(),
            Outcome::Exit(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Outcome::Failed(e) => format!("Internal error occurred: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_where_kubectl_looks_for_it() {
        let status: serde_json::Value = serde_json::from_str(&Outcome::Exit(7).encode(Form::Json)).unwrap();
        assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
        assert_eq!(status["details"]["causes"], json!([{ "reason": "ExitCode", "message": "7" }]));
        assert_eq!(Outcome::Success.encode(Form::Json), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(Outcome::Success.encode(Form::Text), "");
        let failed = Outcome::Failed(Error::internal("no runc"));
        assert_eq!(failed.encode(Form::Text), "Internal error occurred: no runc");
        let status: serde_json::Value = serde_json::from_str(&failed.encode(Form::Json)).unwrap();
        assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    }
}
