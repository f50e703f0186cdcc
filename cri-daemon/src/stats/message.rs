//! Readings as CRI messages. What is not known is left out, so that nobody takes it for zero.

use shared_proto::cri::v1;

use super::Look;
use super::layers::Used;
use super::network::Interface;
use super::parse::{Memory, Pressure, Stall};

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

fn psi(pressure: Option<Pressure>) -> Option<v1::PsiStats> {
    let data = |stall: Stall| {
        let Stall { total, avg10, avg60, avg300 } = stall;
        Some(v1::PsiData { total, avg10, avg60, avg300 })
    };
    pressure.map(|pressure| v1::PsiStats { full: data(pressure.full), some: data(pressure.some) })
}

pub fn cpu(look: &Look, timestamp: i64) -> Option<v1::CpuUsage> {
    let usage = look.reading.cpu?;
    Some(v1::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage),
        usage_nano_cores: look.nano_cores.and_then(value),
        psi: psi(look.reading.cpu_pressure),
    })
}

pub fn memory(look: &Look, timestamp: i64) -> Option<v1::MemoryUsage> {
    let Memory { usage, working_set, limit, rss, page_faults, major_page_faults, swap: _ } = look.reading.memory?;
    Some(v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(working_set),
        available_bytes: limit.and_then(|limit| value(limit.saturating_sub(working_set))),
        usage_bytes: value(usage),
        rss_bytes: value(rss),
        page_faults: value(page_faults),
        major_page_faults: value(major_page_faults),
        psi: psi(look.reading.memory_pressure),
    })
}

pub fn swap(look: &Look, timestamp: i64) -> Option<v1::SwapUsage> {
    let swap = look.reading.memory?.swap?;
    Some(v1::SwapUsage {
        timestamp,
        swap_available_bytes: swap.available.and_then(value),
        swap_usage_bytes: value(swap.usage),
    })
}

pub fn io(look: &Look, timestamp: i64) -> Option<v1::IoUsage> {
    look.reading.io_pressure.map(|pressure| v1::IoUsage { timestamp, psi: psi(Some(pressure)) })
}

pub fn processes(look: &Look, timestamp: i64) -> Option<v1::ProcessUsage> {
    look.reading.processes.map(|count| v1::ProcessUsage { timestamp, process_count: value(count) })
}

pub fn interface(counters: &Interface) -> v1::NetworkInterfaceUsage {
    v1::NetworkInterfaceUsage {
        name: counters.name.clone(),
        rx_bytes: value(counters.rx_bytes),
        rx_errors: value(counters.rx_errors),
        tx_bytes: value(counters.tx_bytes),
        tx_errors: value(counters.tx_errors),
    }
}

pub fn writable_layer(used: Used, mountpoint: String) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: used.at,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint }),
        used_bytes: value(used.bytes),
        inodes_used: value(used.inodes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Reading, Swap};
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let nothing = Look::default();
        assert!(cpu(&nothing, 1).is_none() && memory(&nothing, 1).is_none() && swap(&nothing, 1).is_none());
        assert!(io(&nothing, 1).is_none() && processes(&nothing, 1).is_none());
        let reading = Reading {
            cpu: Some(0),
            memory: Some(Memory { usage: 10, working_set: 8, ..Memory::default() }),
            ..Reading::default()
        };
        let idle = Look { reading, nano_cores: None };
        let cpu = cpu(&idle, 7).unwrap();
        assert_eq!((cpu.timestamp, cpu.usage_core_nano_seconds, cpu.usage_nano_cores), (7, value(0), None));
        let memory = memory(&idle, 7).unwrap();
        assert_eq!((memory.working_set_bytes, memory.available_bytes), (value(8), None));
    }

    #[test]
    fn available_is_what_the_limit_leaves() {
        let swapping = Some(Swap { usage: 3, available: Some(5) });
        let limited = Memory { usage: 10, working_set: 8, limit: Some(20), swap: swapping, ..Memory::default() };
        let look = Look { reading: Reading { memory: Some(limited), ..Reading::default() }, nano_cores: None };
        assert_eq!(memory(&look, 1).unwrap().available_bytes, value(12));
        let swap = swap(&look, 1).unwrap();
        assert_eq!((swap.swap_usage_bytes, swap.swap_available_bytes), (value(3), value(5)));
    }
}
