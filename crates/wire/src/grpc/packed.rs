//! The codec of every service but calls: MessagePack with the names of fields, so that the Rust types are the protocol,
//! a field that is new is passed over by an old reader, and bytes are not blown up as in JSON.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// `application/grpc`, each message in MessagePack.
#[derive(Debug)]
pub struct Packed<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Packed<T, U> {
    fn default() -> Packed<T, U> {
        Packed(PhantomData)
    }
}

/// Writes messages.
#[derive(Debug)]
pub struct PackedEncoder<T>(PhantomData<T>);

/// Reads messages.
#[derive(Debug)]
pub struct PackedDecoder<U>(PhantomData<U>);

impl<T, U> Codec for Packed<T, U>
where
    T: Serialize + Send + 'static,
    U: DeserializeOwned + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = PackedEncoder<T>;
    type Decoder = PackedDecoder<U>;

    fn encoder(&mut self) -> PackedEncoder<T> {
        PackedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> PackedDecoder<U> {
        PackedDecoder(PhantomData)
    }
}

impl<T: Serialize> Encoder for PackedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        rmp_serde::encode::write_named(&mut buffer.writer(), &item)
            .map_err(|error| Status::internal(format!("a message can't be written: {error}")))
    }
}

impl<U: DeserializeOwned> Decoder for PackedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        unpack(&message)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("not the message expected: {error}")))
    }
}

/// A value in MessagePack.
///
/// # Errors
/// When the value can't be written so, a map with keys that are no text for example.
pub fn pack<T: Serialize>(value: &T) -> Result<Bytes, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(value).map(Bytes::from)
}

/// The value that [`pack`] wrote.
///
/// # Errors
/// When the bytes are something else.
pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}
