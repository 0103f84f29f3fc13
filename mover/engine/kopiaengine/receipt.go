package kopiaengine

import (
	"fmt"

	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// sign writes on a snapshot what it lacks of the volume.
func sign(m *snapshot.Manifest, omitted []engine.Omission) error {
	var r contract.Receipt
	for _, o := range omitted {
		r.Omissions = append(r.Omissions, contract.Omission{Reason: string(o.Reason), Count: o.Count, Examples: o.Examples})
	}

	text, err := r.Encode()
	if err != nil {
		return fmt.Errorf("write down what the snapshot lacks: %w", err)
	}

	m.Tags[tagPrefix+contract.TagOmissions] = text

	return nil
}

// lacks returns what a snapshot lacks of its volume. That nobody can tell is one of the
// answers: it keeps nobody from the data that is there.
func lacks(m *snapshot.Manifest) []engine.Omission {
	text, ok := m.Tags[tagPrefix+contract.TagOmissions]
	if !ok {
		return unknown(fmt.Sprintf("snapshot %s has no tag %s", m.ID, contract.TagOmissions))
	}

	r, err := contract.DecodeReceipt(text)
	if err != nil {
		return unknown(fmt.Sprintf("snapshot %s: %v", m.ID, err))
	}

	list := make([]engine.Omission, 0, len(r.Omissions))
	for _, o := range r.Omissions {
		list = append(list, engine.Omission{Reason: engine.OmissionReason(o.Reason), Count: o.Count, Examples: o.Examples})
	}

	return list
}

func unknown(why string) []engine.Omission {
	return []engine.Omission{{Reason: engine.OmittedUnknown, Count: 1, Examples: []string{quote(why)}}}
}
