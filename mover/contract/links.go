package contract

// Hard links: kopia's folder entries can't say that two names are one file, so a snapshot that has such names has a list of
// them beside it, an object of its own in the repository.
const (
	// TagLinks is the object ID of a snapshot's list of hard links. A snapshot without the tag has no list.
	TagLinks = "estiba-links"
	// TagSidecarOf takes the place of TagJob on the manifest of what lies beside a job's snapshot. Kopia keeps what a
	// manifest names; nothing else finds a snapshot by that manifest.
	TagSidecarOf = "estiba-sidecar-of"
	// SidecarUser is the user of kopia's sources of such manifests.
	SidecarUser = SnapshotUser + "-sidecar"
	// LinksStream is how a list of hard links begins.
	LinksStream = "estiba:hardlinks"
	// LinksVersion is the version of the lists that this release writes and reads.
	LinksVersion = 1
)
