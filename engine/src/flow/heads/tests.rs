use super::*;

#[test]
fn long_heads_give_way_before_they_fill_the_memory() {
    let mut heads = Heads::new(100, 400, 1000);
    let places: Vec<u32> =
        (0..5).map(|n| heads.hold((n, Toward::Remote), &[1; 100], Reader::default()).0).collect();
    let held = |heads: &Heads| {
        let owner = |n: usize| (n as u32, Toward::Remote);
        (0..5).filter(|n| heads.is_held(places[*n], owner(*n))).collect::<Vec<_>>()
    };
    assert_eq!(heads.append(places[0], &[1; 900]), 0);
    assert_eq!((heads.bytes, held(&heads)), (800, vec![0, 1, 2, 3, 4]));
    assert_eq!(heads.append(places[1], &[1; 250]), 1);
    assert_eq!((heads.bytes, held(&heads)), (650, vec![1, 2, 3, 4]));
    assert_eq!(heads.append(places[1], &[1; 250]), 0);
    assert_eq!(heads.append(places[2], &[1; 300]), 0);
    assert_eq!(heads.append(places[3], &[1; 100]), 1);
    assert_eq!((heads.bytes, held(&heads)), (700, vec![2, 3, 4]));
    for (n, place) in (0..).zip(&places) {
        heads.release(*place, (n, Toward::Remote));
    }
    assert_eq!(heads.bytes, 0);
}

fn held(heads: &mut Heads, at: u32) -> (Vec<u8>, Vec<(usize, usize)>) {
    let head = heads.fifo.item(at).unwrap();
    (head.bytes[..head.whole].to_vec(), head.pieces().to_vec())
}

#[test]
fn pieces_join_in_any_order_and_what_came_first_stays() {
    let mut heads = Heads::new(2, 1000, 10_000);
    let (at, _) = heads.hold((0, Toward::Remote), b"abc", Reader::default());
    assert!(heads.place(at, 3, b"ghi").waits);
    assert!(heads.place(at, 9, b"mno").waits);
    assert_eq!(held(&mut heads, at), (b"abc".to_vec(), vec![(6, 9), (12, 15)]));
    let between = heads.place(at, 2, b"XGHIjklM");
    assert!(between.conflict && between.waits && !between.grew);
    assert_eq!(held(&mut heads, at).1, [(5, 15)]);
    let rest = heads.place(at, -1, b"cde");
    assert!(rest.grew && !rest.waits && !rest.conflict, "{rest:?}");
    assert_eq!(held(&mut heads, at), (b"abcdeXghijklmno".to_vec(), vec![]));
    assert!(heads.place(at, -100, &[0; 101]).conflict, "what lies before the head is let go");
}

#[test]
fn a_fifth_piece_is_refused_and_the_others_stay() {
    let mut heads = Heads::new(2, 1000, 10_000);
    let (at, _) = heads.hold((0, Toward::Remote), b"", Reader::default());
    for n in 0..4 {
        assert!(!heads.place(at, 1 + 2 * n, &[n as u8]).refused);
    }
    assert!(heads.place(at, 9, &[4]).refused);
    assert_eq!(held(&mut heads, at).1, [(1, 2), (3, 4), (5, 6), (7, 8)]);
    // What closes a hole is taken even then.
    assert!(!heads.place(at, 6, &[9]).refused);
    assert_eq!(heads.leap(at), Some(8));
    assert_eq!(held(&mut heads, at), (vec![2, 9, 3], vec![]));
    assert_eq!(heads.bytes, 3);
}

#[test]
fn pieces_take_as_much_memory_as_their_bytes() {
    let mut heads = Heads::new(2, 60_000, 100_000);
    let (at, _) = heads.hold((0, Toward::Remote), b"x", Reader::default());
    assert!(heads.place(at, 50_000, b"far").waits);
    assert!(heads.place(at, 58_000, &[7; 5000]).waits);
    assert_eq!(heads.bytes, 1 + 3 + 1999, "up to the limit of a head");
    assert!(!heads.place(at, 59_999, b"beyond").conflict);
    assert_eq!(heads.bytes, 2003);
}

/// The same told by a model that keeps every byte at its place.
#[test]
fn pieces_agree_with_a_plain_model() {
    let mut state = 9_u64;
    let mut below = |bound: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for _ in 0..3000 {
        let mut heads = Heads::new(1, 64, 1000);
        let (at, _) = heads.hold((0, Toward::Remote), &[], Reader::default());
        let mut model: [Option<u8>; 64] = [None; 64];
        for step in 1..30_u8 {
            let from = below(64) as usize;
            let len = 1 + below(12) as usize;
            let whole = model.iter().take_while(|byte| byte.is_some()).count();
            assert_eq!(heads.extent(at).0, whole);
            let until = (from + len).min(64);
            let conflict = model[from..until].iter().any(|byte| byte.is_some_and(|b| b != step));
            let placed = heads.place(at, from as i64 - whole as i64, &vec![step; len]);
            if !placed.refused {
                assert_eq!(placed.conflict, conflict);
                for byte in &mut model[from..until] {
                    *byte = byte.or(Some(step));
                }
            }
            let head = heads.fifo.item(at).unwrap();
            let stored: Vec<u8> = model.iter().flatten().copied().collect();
            assert_eq!(head.bytes, stored);
            assert!(head.pieces().len() <= 4);
        }
    }
}
