//! What the archiver asks the server beside the stream: who it is, and how its slot does.

use crate::engines::postgres::client::{Connection, Mode, Target};
use crate::engines::postgres::position::Lsn;
use crate::error::{Cause, Error, Result};
use crate::output;

/// The oldest that is supported: with it `wal_status` came.
const OLDEST: u32 = 130_000;

/// Who a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: u32,
    pub(super) segment_size: u64,
    pub(super) system_identifier: u64,
    /// Empty where the role may not see it.
    pub(super) data_directory: String,
}

/// How a replication slot does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The server keeps everything from here on.
    pub(super) guarded: Option<Lsn>,
    /// Nothing is kept any more.
    lost: bool,
    /// How much log the server keeps only for it, in bytes: not what a recovery after a crash would need.
    pub(super) lag: u64,
}

pub(super) struct Server {
    connection: Connection,
    slot: String,
}

impl Server {
    /// # Errors
    /// When the server cannot be reached, or does not let us in.
    pub(super) async fn open(target: &Target, slot: &str) -> Result<Self> {
        Ok(Self { connection: Connection::open(target, Mode::Queries).await?, slot: slot.to_owned() })
    }

    /// # Errors
    /// When the server is too old, or the role lacks a right.
    pub(super) async fn identity(&mut self, system_identifier: u64) -> Result<Identity> {
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let version = number(self.connection.value("show server_version_num").await?) as u32;
        if version < OLDEST {
            return Err(Error::new(
                Cause::AccessDenied,
                format!("the server is version {version}; archiving needs PostgreSQL 13 or later"),
            ));
        }
        let size = "select setting from pg_settings where name = 'wal_segment_size'";
        let data_directory = match self.connection.value("show data_directory").await {
            Err(error) if error.is(Cause::AccessDenied) => {
                output::note(
                    "NOTICE: the role may not see data_directory; grant pg_read_all_settings, or name the directory at a restore",
                );
                None
            }
            other => other?,
        };
        Ok(Identity {
            version,
            segment_size: number(self.connection.value(size).await?),
            system_identifier,
            data_directory: data_directory.unwrap_or_default(),
        })
    }

    async fn look(&mut self) -> Result<Option<Slot>> {
        let query = format!(
            "select restart_lsn, wal_status, pg_wal_lsn_diff((pg_control_checkpoint()).redo_lsn, restart_lsn)::bigint \
             from pg_replication_slots where slot_name = '{}' and slot_type = 'physical'",
            self.slot
        );
        let Some(row) = self.connection.query(&query).await?.into_iter().next() else { return Ok(None) };
        let field = |at: usize| row.get(at).cloned().flatten();
        let guarded = field(0).map(|text| text.parse()).transpose()?;
        let lost = guarded.is_none() || field(1).as_deref() == Some("lost");
        let lag = field(2).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default().max(0) as u64;
        Ok(Some(Slot { guarded, lost, lag }))
    }

    /// The slot, made where there is none or it is of no use any more.
    ///
    /// # Errors
    /// When the role lacks REPLICATION, or no slot is free.
    pub(super) async fn slot(&mut self) -> Result<Slot> {
        match self.look().await? {
            Some(slot) if !slot.lost => return Ok(slot),
            Some(_) => {
                output::note(&format!("NOTICE: the server has given up the log that slot {} guarded", self.slot));
                self.drop_slot().await?;
            }
            None => {}
        }
        let create = format!("select pg_create_physical_replication_slot('{}', true)", self.slot);
        self.connection.query(&create).await.map_err(|error| {
            error.within(format!("slot {} cannot be made (REPLICATION and a free max_replication_slots?)", self.slot))
        })?;
        output::note(&format!("NOTICE: made the replication slot {}", self.slot));
        self.look().await?.ok_or_else(|| Error::other(format!("slot {} vanished", self.slot)))
    }

    /// Gives up a slot for which the server keeps more than `most` bytes, and tells from where on a new one guards.
    ///
    /// # Errors
    /// When somebody streams from it.
    pub(super) async fn give_up(&mut self, most: u64) -> Result<Option<Lsn>> {
        let Some(slot) = self.look().await?.filter(|slot| slot.lag > most) else { return Ok(None) };
        output::note(&format!(
            "NOTICE: the server keeps {} bytes of log for slot {}, more than the {most} that are allowed: it is given up, and \
             what is not stored of it becomes a gap",
            slot.lag, self.slot
        ));
        self.drop_slot().await?;
        self.slot().await.map(|slot| slot.guarded)
    }

    /// # Errors
    /// When somebody streams from it.
    pub(super) async fn drop_slot(&mut self) -> Result<()> {
        self.connection.query(&format!("select pg_drop_replication_slot('{}')", self.slot)).await.map(drop)
    }

    /// How the slot does while it is in use.
    ///
    /// # Errors
    /// When the connection is lost, or the slot is.
    pub(super) async fn watch(&mut self) -> Result<Slot> {
        let slot = self.look().await?.filter(|slot| !slot.lost);
        slot.ok_or_else(|| Error::new(Cause::NotFound, format!("slot {} does not guard anything any more", self.slot)))
    }

    /// Writes the end of an empty transaction into the log of a quiet primary, so that the time that can be reached moves on.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn beat(&mut self) -> Result<()> {
        let query = "select case when pg_is_in_recovery() then null else pg_current_xact_id() end";
        self.connection.query(query).await.map(drop)
    }

    /// Says once per start where the server would fill its disk for us.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn advise(&mut self) -> Result<()> {
        let limit = self.connection.value("show max_slot_wal_keep_size").await?;
        if limit.as_deref() == Some("-1") {
            output::note(
                "NOTICE: max_slot_wal_keep_size is not set: while this archiver is down the server keeps log until its disk \
                 is full; set it to what the disk can spare",
            );
        }
        Ok(())
    }
}
