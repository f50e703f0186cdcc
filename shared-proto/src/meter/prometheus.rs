//! A meter's numbers as Prometheus metrics: read when they are asked for, so a call pays nothing for them.
//!
//! The names are listed in `docs/metrics.md`. Methods that were never called are left out.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{BUCKETS, Counter, Meter, Side};
use crate::Code;

type Called = (&'static str, &'static str, Arc<Counter>);

impl Collector for Meter {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let called: Vec<Called> = self.lock().iter().filter(|(.., c)| c.calls.load(Relaxed) > 0).cloned().collect();
        let (prefix, what) = match self.side {
            Side::Caller => ("seam_port", "calls of the CRI side on the core's ports"),
            Side::Core => ("seam_core", "calls that the core has served"),
        };
        times(&mut encoder, &format!("{prefix}_call_seconds"), &format!("Duration of {what}"), &called)?;
        errors(&mut encoder, &format!("{prefix}_errors"), &format!("Errors of {what}"), &called)?;
        match self.side {
            Side::Caller => {
                bytes(&mut encoder, "seam_port_message_bytes", &format!("Encoded bytes of {what}"), &called)
            }
            // They are encoded at the other side.
            Side::Core => Ok(()),
        }
    }
}

fn times(encoder: &mut DescriptorEncoder, name: &str, help: &str, called: &[Called]) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (service, method, counter) in called {
        let ends = BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = ends.zip(counter.buckets.iter().map(|bucket| bucket.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = counter.nanos.load(Relaxed) as f64 / 1e9;
        let labels = [("service", *service), ("method", *method)];
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

fn errors(encoder: &mut DescriptorEncoder, name: &str, help: &str, called: &[Called]) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (service, method, counter) in called {
        for (code, errors) in Code::ALL.iter().zip(&counter.errors) {
            let errors = errors.load(Relaxed);
            if errors > 0 {
                let labels = [("service", *service), ("method", *method), ("code", code.name())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&errors, None)?;
            }
        }
    }
    Ok(())
}

fn bytes(encoder: &mut DescriptorEncoder, name: &str, help: &str, called: &[Called]) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (service, method, counter) in called {
        for (direction, bytes) in [("to_core", &counter.bytes_out), ("from_core", &counter.bytes_in)] {
            let bytes = bytes.load(Relaxed);
            if bytes > 0 {
                let labels = [("service", *service), ("method", *method), ("direction", direction)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&bytes, None)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn calls_errors_and_bytes_are_shown() {
        let meter = Meter::default();
        let counter = meter.register("Tasks.start");
        meter.register("Tasks.never");
        counter.start().stop(&Ok(()));
        counter.start().stop::<()>(&Err(crate::Error::not_found("gone")));
        drop(counter.start());
        counter.sent(7);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(meter));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE seam_port_call_seconds histogram",
            r#"seam_port_call_seconds_count{service="Tasks",method="start"} 3"#,
            r#"seam_port_call_seconds_bucket{le="+Inf",service="Tasks",method="start"} 3"#,
            r#"seam_port_errors_total{service="Tasks",method="start",code="NotFound"} 1"#,
            r#"seam_port_errors_total{service="Tasks",method="start",code="Canceled"} 1"#,
            r#"seam_port_message_bytes_total{service="Tasks",method="start",direction="to_core"} 7"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("never"), "{text}");
    }
}
