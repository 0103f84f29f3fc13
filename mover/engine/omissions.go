package engine

import (
	"slices"
	"strings"
)

// Omission counts entries, or attributes of entries, that could not be kept.
type Omission struct {
	Reason OmissionReason `json:"reason"`
	Count  int64          `json:"count"`
	// Examples are the first MaxExamples paths, relative to the root, quoted as Go strings.
	Examples []string `json:"examples,omitempty"`
}

// MaxExamples is how many paths an Omission names.
const MaxExamples = 10

// OmissionReason is what could not be kept, in one word.
type OmissionReason string

// The reasons of omissions.
const (
	OmittedSocket     OmissionReason = "Socket"
	OmittedFIFO       OmissionReason = "FIFO"
	OmittedDevice     OmissionReason = "Device"
	OmittedMount      OmissionReason = "Mount"
	OmittedHardLink   OmissionReason = "HardLink"
	OmittedXattr      OmissionReason = "ExtendedAttributes"
	OmittedHoles      OmissionReason = "Holes"
	OmittedVanished   OmissionReason = "Vanished"
	OmittedChanged    OmissionReason = "ChangedWhileRead"
	OmittedReplaced   OmissionReason = "ReplacedWhileRead"
	OmittedTimestamp  OmissionReason = "TimestampOutOfRange"
	OmittedOwner      OmissionReason = "Owner"
	OmittedUnreadable OmissionReason = "Unreadable"
	// OmittedDamaged: the repository does not have it, or not as it was; a restore left it out.
	OmittedDamaged OmissionReason = "Damaged"
	// OmittedUnwritable: it could not be written into the volume; a restore left it out.
	OmittedUnwritable OmissionReason = "Unwritable"
	// OmittedRoom: restored, the snapshot takes more room than the volume has, since its file system shares blocks
	// between files.
	OmittedRoom OmissionReason = "TooBigForItsVolume"
	// OmittedUnknown: what the snapshot lacks can't be told, because what was written
	// about it is missing or can't be read.
	OmittedUnknown OmissionReason = "OmissionsUnknown"
)

// Known reports whether the reason is one of the above.
func (r OmissionReason) Known() bool {
	switch r {
	case OmittedSocket, OmittedFIFO, OmittedDevice, OmittedMount, OmittedHardLink, OmittedXattr, OmittedHoles, OmittedVanished,
		OmittedChanged, OmittedReplaced, OmittedTimestamp, OmittedOwner, OmittedUnreadable,
		OmittedDamaged, OmittedUnwritable, OmittedRoom, OmittedUnknown:
		return true
	default:
		return false
	}
}

// Harmless reports whether nothing that anybody could miss is lost by an omission for
// the reason: it is counted, and nobody is warned. A reason that is not known is not harmless.
func (r OmissionReason) Harmless() bool {
	switch r {
	case OmittedSocket, OmittedHoles, OmittedVanished:
		// A program makes its sockets anew, holes read as the zeros that are kept, and what was
		// removed is removed.
		return true
	default:
		return false
	}
}

// MergeOmissions returns the omissions of all lists in the order of their reasons, each
// reason once.
func MergeOmissions(lists ...[]Omission) []Omission {
	var all []Omission

	for _, o := range slices.Concat(lists...) {
		i := slices.IndexFunc(all, func(m Omission) bool { return m.Reason == o.Reason })
		if i < 0 {
			o.Examples = slices.Clone(o.Examples)
			all = append(all, o)

			continue
		}

		all[i].Count += o.Count
		all[i].Examples = append(all[i].Examples, o.Examples...)
	}

	for i := range all {
		all[i].Examples = all[i].Examples[:min(len(all[i].Examples), MaxExamples)]
	}

	slices.SortFunc(all, func(a, b Omission) int { return strings.Compare(string(a.Reason), string(b.Reason)) })

	return all
}
