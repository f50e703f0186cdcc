use proptest::prelude::*;

use super::*;

/// Every kind of frame, as a client would write it.
fn every_frame() -> Vec<u8> {
    let mut headers = headers::Writer::new().unwrap();
    let mut out = Vec::new();
    for (stream, name) in [(1u32, "error"), (3, "stdin")] {
        let block = headers.write(&[("streamtype", name)]).unwrap();
        let body = [&stream.to_be_bytes()[..], &[0; 6], &block].concat();
        out.extend_from_slice(&control(kind::SYN_STREAM, 0, &body));
    }
    let block = headers.write(&[("x", "y")]).unwrap();
    out.extend_from_slice(&control(kind::HEADERS, FIN, &[&3u32.to_be_bytes()[..], &block].concat()));
    let settings = [&1u32.to_be_bytes()[..], &two(INITIAL_WINDOW, 1000)].concat();
    out.extend_from_slice(&control(kind::SETTINGS, 0, &settings));
    out.extend_from_slice(&data_header(3, true, 5));
    out.extend_from_slice(b"hello");
    out.extend_from_slice(&control(77, 0, &[9; 100]));
    for frame in [ping(1), reset(3, Reset::Refused), window_update(0, 7), go_away(3, false)] {
        out.extend_from_slice(&frame);
    }
    out
}

fn decode(decoder: &mut Decoder, buffer: &mut BytesMut) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next(buffer)? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn reads_every_frame_in_pieces_of_any_size() {
    let all = every_frame();
    let syn =
        |stream, name: &str| Frame::SynStream { stream, fin: false, headers: vec![("streamtype".into(), name.into())] };
    let expected = [
        syn(1, "error"),
        syn(3, "stdin"),
        Frame::Headers { stream: 3, fin: true, headers: vec![("x".into(), "y".into())] },
        Frame::Settings(vec![(INITIAL_WINDOW, 1000)]),
        Frame::Data { stream: 3, fin: true, data: Bytes::from_static(b"hello") },
        Frame::Ping(1),
        Frame::Reset { stream: 3, status: 3 },
        Frame::WindowUpdate { stream: 0, by: 7 },
        Frame::GoAway { last: 3, status: 0 },
    ];
    assert_eq!(decode(&mut Decoder::default(), &mut BytesMut::from(&all[..])).unwrap(), expected);
    for size in [1, 2, 3, 7, 8, 9, 64] {
        let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in all.chunks(size) {
            buffer.extend_from_slice(piece);
            frames.extend(decode(&mut decoder, &mut buffer).unwrap());
        }
        // Data comes in pieces; everything else is the same.
        let data: Vec<u8> = frames
            .iter()
            .flat_map(|f| if let Frame::Data { data, .. } = f { &data[..] } else { &[] })
            .copied()
            .collect();
        assert_eq!(data, b"hello");
        let fins = frames.iter().filter(|frame| matches!(frame, Frame::Data { fin: true, .. })).count();
        assert_eq!(fins, 1, "in pieces of {size}");
        let others = frames.iter().filter(|frame| !matches!(frame, Frame::Data { .. })).count();
        assert_eq!(others, expected.len() - 1);
    }
}

#[test]
fn a_frame_may_be_large_but_is_never_held() {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    buffer.extend_from_slice(&data_header(1, true, 0x00ff_ffff));
    let mut left = 0x00ff_ffff;
    while left > 0 {
        let piece = left.min(100_000);
        buffer.extend_from_slice(&vec![0; piece]);
        for frame in decode(&mut decoder, &mut buffer).unwrap() {
            let Frame::Data { data, fin, .. } = frame else { panic!("{frame:?}") };
            assert!(data.len() <= PIECE && !data.is_empty());
            left -= data.len();
            assert_eq!(fin, left == 0);
        }
        assert!(buffer.is_empty());
    }
    let large = [&[0x80, 3, 0, 1, 0][..], &[0xff; 3]].concat();
    let refused = decoder.next(&mut BytesMut::from(&large[..]));
    assert_eq!(refused, Err(FrameError::TooLarge { kind: 1, length: 0x00ff_ffff }));
}

#[test]
fn other_protocols_are_refused() {
    let next = |bytes: &[u8]| Decoder::default().next(&mut BytesMut::from(bytes)).unwrap_err();
    assert_eq!(next(&[0x80, 2, 0, 1, 0, 0, 0, 0]), FrameError::Version(2));
    assert_eq!(next(&[0x80, 3, 0, 6, 0, 0, 0, 0]), FrameError::Length { kind: 6, length: 0 });
    assert_eq!(next(&[0x80, 3, 0, 2, 0, 0, 0, 0]), FrameError::Length { kind: 2, length: 0 });
    assert_eq!(next(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]), FrameError::Length { kind: 4, length: 4 });
}

/// Reads everything that can be read; what is held never exceeds a control frame and its header.
fn survives(input: &[u8], piece: usize) {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        let mut held = 0;
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Frame::Data { data, .. })) => assert!(data.len() <= PIECE),
                Ok(Some(
                    Frame::SynStream { headers, .. } | Frame::SynReply { headers, .. } | Frame::Headers { headers, .. },
                )) => {
                    held = held.max(headers.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>());
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        // Bytes that are no UTF-8 grow by three when they are replaced.
        assert!(held <= 3 * headers::LARGEST && buffer.len() <= LARGEST + HEADER);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..600) {
        survives(&input, piece);
    }

    #[test]
    fn mutated_frames_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        piece in 1usize..200,
    ) {
        let mut input = every_frame();
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        // Also in the middle of a conversation.
        let cut = cut.index(input.len());
        input.extend_from_within(cut..);
        survives(&input, piece);
    }
}
