//! What containers use, as their control groups tell: version 1 and 2.

/// What the processes of a container use together. What a kernel does not tell is 0, a limit that is not set nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory in bytes, without files that the kernel may drop at once: as `docker stats` counts it.
    pub memory: u64,
    /// The most that it gets, in bytes.
    pub memory_limit: Option<u64>,
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Periods in which a limit of processor time counts.
    pub periods: u64,
    /// Those in which it was made to wait.
    pub throttled_periods: u64,
    /// How long it was made to wait, in seconds.
    pub throttled: f64,
    /// Processes and threads.
    pub processes: u64,
    /// The most of them.
    pub processes_limit: Option<u64>,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
}

/// From here on, a limit of version 1 is none: it has no word for that but a number no machine reaches.
const NO_LIMIT: u64 = 1 << 62;

impl Usage {
    /// Reads lines of the helper: `U FILE LINE`, by the file's name in its control group. Nothing where none tells of
    /// memory: the container is gone, or nobody may look at it.
    pub(super) fn read(lines: &str) -> Option<Self> {
        let mut usage = Self::default();
        let (mut used, mut droppable) = (None, 0);
        for line in lines.lines() {
            let Some((file, line)) = line.strip_prefix("U ").and_then(|line| line.split_once(' ')) else {
                continue;
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            let (only, second) = (number(0), number(1).unwrap_or_default());
            match (file, words.as_slice()) {
                ("memory.current" | "memory.usage_in_bytes", _) => used = only,
                ("memory.max" | "memory.limit_in_bytes", _) => {
                    usage.memory_limit = only.filter(|limit| *limit < NO_LIMIT);
                }
                // Version 1 counts what is below it apart; both lines come in the one order.
                ("memory.stat", ["inactive_file" | "total_inactive_file", _]) => droppable = second,
                ("cpuacct.usage", _) => usage.cpu = seconds(only.unwrap_or_default(), 1e9),
                ("cpu.stat", ["usage_usec", _]) => usage.cpu = seconds(second, 1e6),
                ("cpu.stat", ["throttled_usec", _]) => usage.throttled = seconds(second, 1e6),
                ("cpu.stat", ["throttled_time", _]) => usage.throttled = seconds(second, 1e9),
                ("cpu.stat", ["nr_periods", _]) => usage.periods = second,
                ("cpu.stat", ["nr_throttled", _]) => usage.throttled_periods = second,
                ("pids.current", _) => usage.processes = only.unwrap_or_default(),
                ("pids.max", _) => usage.processes_limit = only,
                ("io.stat", [_device, counts @ ..]) => {
                    let of = |name: &str| {
                        let mut counts = counts.iter().filter_map(|count| count.strip_prefix(name));
                        counts.next().and_then(|count| count.parse::<u64>().ok()).unwrap_or_default()
                    };
                    usage.read = usage.read.saturating_add(of("rbytes="));
                    usage.written = usage.written.saturating_add(of("wbytes="));
                }
                ("blkio.throttle.io_service_bytes_recursive", [_device, "Read", _]) => {
                    usage.read = usage.read.saturating_add(number(2).unwrap_or_default());
                }
                ("blkio.throttle.io_service_bytes_recursive", [_device, "Write", _]) => {
                    usage.written = usage.written.saturating_add(number(2).unwrap_or_default());
                }
                _ => {}
            }
        }
        usage.memory = used?.saturating_sub(droppable);
        Some(usage)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of moments")]
fn seconds(count: u64, of_one: f64) -> f64 {
    count as f64 / of_one
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kernel with version 2 shows them: the group of a container with limits, on two disks; by hand, beside the recorded
    /// ones.
    const UNIFIED: &str = "U memory.current 52428800
U memory.max 268435456
U memory.stat anon 31457280
U memory.stat file 20971520
U memory.stat inactive_anon 4096
U memory.stat inactive_file 10485760
U memory.stat active_file 10485760
U cpu.stat usage_usec 12345678
U cpu.stat user_usec 10000000
U cpu.stat system_usec 2345678
U cpu.stat nr_periods 400
U cpu.stat nr_throttled 30
U cpu.stat throttled_usec 1500000
U cpu.stat nr_bursts 0
U pids.current 9
U pids.max 256
U io.stat 259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0
U io.stat 259:1 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0
";

    /// As a kernel with version 1 shows them.
    const APART: &str = "U memory.usage_in_bytes 52428800
U memory.limit_in_bytes 268435456
U memory.stat cache 20971520
U memory.stat inactive_file 10485760
U memory.stat hierarchical_memory_limit 268435456
U memory.stat total_cache 20971520
U memory.stat total_inactive_file 10485760
U cpuacct.usage 12345678000
U cpu.stat nr_periods 400
U cpu.stat nr_throttled 30
U cpu.stat throttled_time 1500000000
U pids.current 9
U pids.max 256
U blkio.throttle.io_service_bytes_recursive 259:0 Read 4097
U blkio.throttle.io_service_bytes_recursive 259:0 Write 8194
U blkio.throttle.io_service_bytes_recursive 259:0 Total 12291
U blkio.throttle.io_service_bytes_recursive Total 12291
";

    /// What the helper read of a container on a kernel with version 2, and what Docker said of that container before and after
    /// it: while the container was at work, and while all its processes stood still.
    macro_rules! recorded {
        ($($kernel:literal: $engine:literal),*) => {
            [$((
                concat!("Linux ", $kernel, ", Docker ", $engine),
                [
                    [
                        include_str!(concat!("../../tests/golden/usage/linux-", $kernel, "-busy-usage.txt")),
                        include_str!(concat!("../../tests/golden/usage/linux-", $kernel, "-busy-before.json")),
                        include_str!(concat!("../../tests/golden/usage/linux-", $kernel, "-busy-after.json")),
                    ],
                    [
                        include_str!(concat!("../../tests/golden/usage/linux-", $kernel, "-stopped-usage.txt")),
                        include_str!(concat!("../../tests/golden/usage/linux-", $kernel, "-stopped-before.json")),
                        include_str!(concat!("../../tests/golden/usage/linux-", $kernel, "-stopped-before.json")),
                    ],
                ],
            )),*]
        };
    }

    /// What Docker said of a container, in the order of what is compared: memory, its limit, nanoseconds of the processor,
    /// periods, throttled periods, nanoseconds of throttling, processes, their limit, bytes read and written.
    fn said(stats: &str) -> [u64; 10] {
        let stats: serde_json::Value = serde_json::from_str(stats).unwrap();
        let at = |pointer: &str| stats.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap();
        let moved = |operation: &str| {
            let all = stats["blkio_stats"]["io_service_bytes_recursive"].as_array().unwrap().iter();
            all.filter(|one| one["op"] == operation).filter_map(|one| one["value"].as_u64()).sum()
        };
        [
            at("/memory_stats/usage") - at("/memory_stats/stats/inactive_file"),
            at("/memory_stats/limit"),
            at("/cpu_stats/cpu_usage/total_usage"),
            at("/cpu_stats/throttling_data/periods"),
            at("/cpu_stats/throttling_data/throttled_periods"),
            at("/cpu_stats/throttling_data/throttled_time"),
            at("/pids_stats/current"),
            at("/pids_stats/limit"),
            moved("read"),
            moved("write"),
        ]
    }

    #[test]
    fn what_is_read_with_version_2_is_what_docker_said() {
        let nanoseconds = |seconds: f64| format!("{:.0}", seconds * 1e9).parse::<u64>().unwrap();
        for (where_from, rounds) in recorded!("6.1": "20.10", "6.12": "26.1") {
            for [read, before, after] in rounds {
                let usage = Usage::read(read).unwrap();
                let ours = [
                    usage.memory,
                    usage.memory_limit.unwrap(),
                    nanoseconds(usage.cpu),
                    usage.periods,
                    usage.throttled_periods,
                    nanoseconds(usage.throttled),
                    usage.processes,
                    usage.processes_limit.unwrap(),
                    usage.read,
                    usage.written,
                ];
                for (at, (ours, between)) in
                    ours.iter().zip(said(before).into_iter().zip(said(after))).enumerate()
                {
                    assert!((between.0..=between.1).contains(ours), "{where_from}: {at}: {ours} {between:?}");
                    assert!(*ours > 0, "{where_from}: {at}");
                }
            }
        }
    }

    #[test]
    fn both_versions_tell_the_same() {
        let expected = Usage {
            memory: 41_943_040,
            memory_limit: Some(268_435_456),
            cpu: 12.345_678,
            periods: 400,
            throttled_periods: 30,
            throttled: 1.5,
            processes: 9,
            processes_limit: Some(256),
            read: 4097,
            written: 8194,
        };
        assert_eq!(Usage::read(UNIFIED), Some(expected.clone()));
        assert_eq!(Usage::read(APART), Some(expected));
    }

    #[test]
    fn no_limit_and_no_container() {
        for limit in ["U memory.max max", "U memory.limit_in_bytes 9223372036854771712"] {
            let lines = format!("U memory.current 5\n{limit}\nU pids.max max\n");
            assert_eq!(Usage::read(&lines), Some(Usage { memory: 5, ..Usage::default() }), "{limit}");
        }
        // More may be dropped than is used by the time that is read.
        let dropped = "U memory.current 5\nU memory.stat inactive_file 7\n";
        assert_eq!(Usage::read(dropped), Some(Usage::default()));
        for lines in ["", "U pids.current 4\n", "rubbish\nU\nU x\n"] {
            assert_eq!(Usage::read(lines), None, "{lines:?}");
        }
    }
}
