//! Compares the bucket with the ledger, and the newest manifest with the ones before it.

use containment::Target;
use custody::{Item, ItemState, MANIFEST, Previous};
use evidence::Entry;
use verdict::InstanceReport;

use crate::collect::Collected;
use crate::objects::Listed;
use crate::{Sealer, Trouble, record};

/// What the comparison found, and the bytes of what later steps read.
pub(crate) struct Compared {
    /// Every piece of evidence.
    pub(crate) items: Vec<Item>,
    /// The manifest that the new one follows.
    pub(crate) previous: Option<Previous>,
    /// What the verifier stored.
    pub(crate) record: Option<Vec<u8>>,
    /// What `verify-containment` stored last.
    pub(crate) contained: Option<Vec<u8>>,
    /// What `collect-facts` stored.
    pub(crate) facts: Option<Vec<u8>>,
}

impl Sealer {
    pub(crate) async fn compare(
        &self,
        collected: &Collected,
        target: &Target,
        report: &InstanceReport,
        trouble: &mut Trouble,
    ) -> Compared {
        let mut compared = self.items(collected, target, report).await;
        trouble.0.extend(compared.items.iter().filter_map(what_is_wrong));
        let Collected { prefix, before, listed, .. } = collected;
        let previous = self.objects.previous(prefix, listed.as_ref()).await;
        compared.previous = trouble.or_none("the previous manifest could not be read", previous).flatten();
        if let Some(doubt) = out_of_line(compared.previous.as_ref(), before)
            && !self.is_own(prefix, listed.as_ref(), before, trouble).await
        {
            trouble.0.push(doubt);
        }
        compared
    }

    /// Every piece in the ledger, then everything else in the case.
    async fn items(&self, collected: &Collected, target: &Target, report: &InstanceReport) -> Compared {
        let Collected { prefix, ledger, listed, .. } = collected;
        let verified = record::pointer(report, record::verifier(target));
        let mut compared = Compared { items: Vec::new(), previous: None, record: None, contained: None, facts: None };
        for (entry, examined) in self.objects.examine_all(prefix, ledger, listed.as_ref()).await {
            // What is read counts only if it is what the function wrote; of several, the last.
            if examined.item.state == ItemState::Intact {
                if Some(&entry.pointer) == verified {
                    compared.record = examined.body;
                } else if record::is_containment(&examined.item.name) {
                    compared.contained = examined.body;
                } else if record::is_facts(&examined.item.name) {
                    compared.facts = examined.body;
                }
            }
            compared.items.push(examined.item);
        }
        let unlisted = listed.as_ref().map(|listed| listed.unlisted(prefix, ledger, &target.instance_id));
        for (_, examined) in self.objects.examine_all(prefix, &unlisted.unwrap_or_default(), None).await {
            let note = why_unlisted(&examined.item, &compared.items);
            let notes = [Some(note), examined.item.note].into_iter().flatten().collect::<Vec<_>>();
            compared.items.push(Item { state: ItemState::Unlisted, note: Some(notes.join("; ")), ..examined.item });
        }
        compared
    }

    /// Whether this function sealed the newest manifest and then could not enter it into the ledger: it bears the key's
    /// signature, and follows the manifest below it. One that somebody put back is signed too, but follows another.
    async fn is_own(&self, prefix: &str, listed: Option<&Listed>, before: &[Entry], trouble: &mut Trouble) -> bool {
        let Some(listed) = listed else { return false };
        let mut written = before.iter().filter(|entry| entry.pointer.key.ends_with(MANIFEST));
        if !written.all(|entry| listed.has(&entry.pointer)) {
            return false;
        }
        let newest = self.objects.newest_manifest(prefix, listed).await;
        let newest = trouble.or_none("whether the newest manifest follows the previous one is unknown", newest);
        let Some(newest) = newest.flatten().filter(|newest| newest.follows) else { return false };
        let verified = self.has_signed(&newest.bytes, newest.signature).await;
        trouble.or_none("whether Cordon's key signed the newest manifest is unknown", verified).unwrap_or(false)
    }
}

/// What is wrong with a piece of evidence, if anything.
pub(crate) fn what_is_wrong(item: &Item) -> Option<String> {
    let word = match item.state {
        ItemState::Intact | ItemState::Unlisted => return None,
        ItemState::Altered => "altered",
        ItemState::Missing => "missing",
        ItemState::Unread => "unreadable",
    };
    Some(format!("{} is {word}: {}", item.name, item.note.as_deref().unwrap_or("no reason given")))
}

/// What is known of an object that the ledger lacks. An upload whose reply is lost is repeated, as another version, and
/// only the last one is entered; a function that could not reach the case table entered none, and its row says so.
fn why_unlisted(item: &Item, known: &[Item]) -> String {
    let same = |one: &&Item| {
        one.state == ItemState::Intact && one.name == item.name && one.sha256.is_some() && one.sha256 == item.sha256
    };
    match known.iter().find(same) {
        Some(twin) => format!(
            "it is not in the case's ledger, but has the name and the bytes of version {}, which is: the upload was \
             repeated because its reply was lost",
            twin.version_id
        ),
        None => "it is not in the case's ledger: either a function stored it and could not enter it, and its step \
                 failed, or somebody else put it there"
            .to_owned(),
    }
}

/// Why the newest manifest in the bucket is not the one that the ledger names: somebody may have put back an older one,
/// under a version that nobody entered.
fn out_of_line(previous: Option<&Previous>, before: &[Entry]) -> Option<String> {
    let mut written = before.iter().filter(|entry| entry.pointer.key.ends_with(MANIFEST));
    let Some(previous) = previous else {
        let gone = "the case was sealed before, and the bucket has no manifest of it";
        return written.next().map(|_| gone.to_owned());
    };
    let version = &previous.version_id;
    let known = written.any(|entry| entry.pointer.version_id.as_ref() == Some(version));
    (!known).then(|| format!("the previous manifest, version {version}, was not written by this function"))
}
