//! How values become columns.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use super::{AnnouncementState, AttemptKind, Content, Counter, Hold, RecordOutcome, TargetKind};
use crate::types::{BackingNo, Crc64, DeviceNo, ETag, FileKind, Ino, Key, TargetId, TimeNs};

/// A 64-bit unsigned number, stored as the signed one with the same bits (J3).
pub(super) struct Bits(pub(super) u64);

impl ToSql for Bits {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.cast_signed()))
    }
}

impl FromSql for Bits {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Bits(value.as_i64()?.cast_unsigned()))
    }
}

/// Newtypes of u64.
macro_rules! as_bits {
    ($($type:ident),*) => {$(
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.0.cast_signed()))
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Ok($type(value.as_i64()?.cast_unsigned()))
            }
        }
    )*};
}

as_bits!(Ino, BackingNo, Crc64);

/// Newtypes of what SQLite knows.
macro_rules! as_inner {
    ($($type:ident),*) => {$(
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                FromSql::column_result(value).map($type)
            }
        }
    )*};
}

as_inner!(TargetId, Key, ETag, TimeNs);

/// Enumerations. A number is for ever: never give one another meaning.
macro_rules! as_number {
    ($type:ident { $($variant:ident = $number:literal),* $(,)? }) => {
        impl ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let number: i64 = match self {
                    $($type::$variant => $number),*
                };
                Ok(ToSqlOutput::from(number))
            }
        }

        impl FromSql for $type {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_i64()? {
                    $($number => Ok($type::$variant),)*
                    unknown => Err(FromSqlError::OutOfRange(unknown)),
                }
            }
        }
    };
}

/// The kind in the lowest byte; which device, if it is one, above.
impl ToSql for FileKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let kind: i64 = match self {
            FileKind::File => 1,
            FileKind::Dir => 2,
            FileKind::Symlink => 3,
            FileKind::Fifo => 4,
            FileKind::Socket => 5,
            FileKind::CharDevice(_) => 6,
            FileKind::BlockDevice(_) => 7,
        };
        let device = self.device().unwrap_or_default();
        Ok(ToSqlOutput::from(kind | i64::from(device.0) << 8))
    }
}

impl FromSql for FileKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        let unknown = || FromSqlError::OutOfRange(number);
        let device = DeviceNo(u32::try_from(number >> 8).map_err(|_| unknown())?);
        let kind = match number & 0xff {
            1 => FileKind::File,
            2 => FileKind::Dir,
            3 => FileKind::Symlink,
            4 => FileKind::Fifo,
            5 => FileKind::Socket,
            6 => FileKind::CharDevice(device),
            7 => FileKind::BlockDevice(device),
            _ => return Err(unknown()),
        };
        if kind.device().is_none() && device != DeviceNo::default() { Err(unknown()) } else { Ok(kind) }
    }
}

as_number!(TargetKind { Mapping = 1, Sync = 2, Record = 3 });
as_number!(Content { Absent = 1, Clean = 2, Open = 3, Flushed = 4, Closed = 5, Torn = 6 });
as_number!(Hold { Crash = 1, Power = 2, KilledWriter = 3, DiskFull = 4, Journal = 5, Incomplete = 6, DiskFailed = 7 });
as_number!(AttemptKind { Put = 1, Multipart = 2, Copy = 3 });
as_number!(AnnouncementState { Owed = 1, Failed = 2, GaveUp = 3 });
as_number!(RecordOutcome { Success = 1, Failed = 2 });
as_number!(Counter { Ino = 1, Backing = 2, Attempt = 3, Seq = 4 });
