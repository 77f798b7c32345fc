//! Asks groups for their registrations after a restore, so that the identities of excluded devices
//! without a record are deleted.

use super::{Failure, Reconciler, pause_seconds};
use crate::ca::{Code, Error};
use crate::enrollment::id::{EnrollmentGroupId, IdInvalid};
use crate::provisioning::dps::ScanKind;
use crate::provisioning::pages::Pages;
use crate::store::GroupToList;

/// The pause after a failure, as that after so many failed attempts.
const ATTEMPTS: i64 = 4;

impl Reconciler {
    /// Lists the registrations of every group that is due.
    pub(super) async fn list_registrations(&self) -> Result<(), Error> {
        while let Some(group) = self.group_to_list().await? {
            match self.list(&group).await {
                Ok(()) => self.observed.notify_one(),
                Err(Failure::Here(error)) => return Err(error),
                Err(Failure::There(error)) => {
                    let service = &self.name;
                    let seconds = pause_seconds(ATTEMPTS, None);
                    tracing::warn!(service, reason = %error, seconds, "registrations not listed");
                    let postponed = self.blocking(move |ca| {
                        let due = ca.now().saturating_add_unsigned(seconds);
                        Ok(ca.store().postpone_group(group.id, due)?)
                    });
                    postponed.await?;
                }
            }
        }
        Ok(())
    }

    async fn group_to_list(&self) -> Result<Option<GroupToList>, Error> {
        let name = self.name.clone();
        let next = self.blocking(move |ca| Ok(ca.store().group_to_list(&name, ca.now())?));
        next.await
    }

    /// Queues the deletions page by page.
    async fn list(&self, group: &GroupToList) -> Result<(), Failure> {
        let invalid = |error: IdInvalid| Error::stop(Code::StoreUnreadable, error.to_string());
        let id = EnrollmentGroupId::parse(&group.name).map_err(invalid)?;
        let mut pages = Pages::of(ScanKind::Individuals);
        let mut next = None;
        loop {
            let page = self
                .clients
                .dps
                .registrations_of(&id, next.as_ref())
                .await?;
            pages.count(&page)?;
            let ids = page.records.iter().filter_map(|it| it.id());
            let devices = ids.map(str::to_owned).collect();
            let asked = group.clone();
            let is_last = page.next.is_none();
            let queued = self.blocking(move |ca| {
                let now = ca.now();
                ca.store().queue_unknown_identities(&asked, devices, now)?;
                if is_last {
                    ca.store().record_listed(asked.id, now)?;
                }
                Ok(())
            });
            queued.await?;
            next = page.next;
            if is_last {
                return Ok(());
            }
        }
    }
}
