//! smoke
use unisono::*;
#[test]
fn smoke() {
    for n in [1usize, 2, 3, 4, 7] {
        let mut small = Parameters::for_world(n);
        small.chunk_bytes = 4096;
        small.swap_bytes = 512;
        small.small_bytes = 256;
        small.broadcast_bytes = 256;
        small.window_bytes = 512;
        let ranks = Communicator::in_process_with(n, &small).unwrap();
        std::thread::scope(|s| {
            for c in ranks {
                s.spawn(move || {
                    let c = c.with_timeout(Some(std::time::Duration::from_secs(10)));
                    for count in [0usize, 1, 5, 100, 1000, 5000] {
                        let r = c.rank();
                        let mut d: Vec<i32> = (0..count).map(|i| (i * 7 + r * 13) as i32).collect();
                        let orig = d.clone();
                        c.all_reduce(&mut d, ReduceOp::Sum).unwrap();
                        for i in 0..count {
                            assert_eq!(d[i], (0..n).map(|r| (i * 7 + r * 13) as i32).sum::<i32>(), "ar {n} {count} {i}");
                        }
                        for root in 0..n {
                            let mut d = orig.clone();
                            c.reduce(&mut d, ReduceOp::Sum, root).unwrap();
                            for i in 0..count {
                                let want = if r == root { (0..n).map(|r| (i * 7 + r * 13) as i32).sum::<i32>() } else { orig[i] };
                                assert_eq!(d[i], want, "reduce");
                            }
                            let mut d = orig.clone();
                            c.broadcast(&mut d, root).unwrap();
                            for i in 0..count { assert_eq!(d[i], (i * 7 + root * 13) as i32); }
                            let mut all = vec![0; count * n];
                            c.gather(&orig, Some(&mut all), root).unwrap();
                            if r == root { for q in 0..n { for i in 0..count { assert_eq!(all[q * count + i], (i * 7 + q * 13) as i32); } } }
                            let mut back = vec![0; count];
                            c.scatter(Some(&all), &mut back, root).unwrap();
                            assert_eq!(back, orig);
                        }
                        let mut all = vec![0; count * n];
                        c.all_gather(&orig, &mut all).unwrap();
                        for q in 0..n { for i in 0..count { assert_eq!(all[q * count + i], (i * 7 + q * 13) as i32); } }
                        let mut out = vec![0; count];
                        c.reduce_scatter(&all, &mut out, ReduceOp::Sum).unwrap();
                        for i in 0..count { assert_eq!(out[i], (i * 7 + r * 13) as i32 * n as i32); }
                        let mut a2a = vec![0; count * n];
                        c.all_to_all(&all, &mut a2a).unwrap();
                        for q in 0..n { for i in 0..count { assert_eq!(a2a[q * count + i], (i * 7 + r * 13) as i32); } }
                        c.send(&orig, (r + 1) % n).unwrap_or_else(|e| if n > 1 && count > 100 { panic!("{e}") });
                        let mut got = vec![0; count];
                        c.recv(&mut got, (r + n - 1) % n).unwrap();
                        for i in 0..count { assert_eq!(got[i], (i * 7 + ((r + n - 1) % n) * 13) as i32); }
                        c.barrier().unwrap();
                        let half = c.split(Some(r as u64 % 2), 0).unwrap().unwrap();
                        let mut d = [1i32];
                        half.all_reduce(&mut d, ReduceOp::Sum).unwrap();
                        assert_eq!(d[0] as usize, half.world_size());
                    }
                    c.close(std::time::Duration::from_secs(5)).unwrap();
                });
            }
        });
    }
}
