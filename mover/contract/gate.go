package contract

import (
	"encoding/json"
	"fmt"
)

// The restore gate in a restored pod.
const (
	// GateContainer is the name of the init container that waits for the data.
	GateContainer = "estiba-restore-wait"
	// GateVolume is the name of the emptyDir through which the mover speaks to it.
	GateVolume = "estiba-gate"
	// GateMountPath is where the container finds that volume.
	GateMountPath = "/estiba-gate"
	// GateProgressFile holds one line for people.
	GateProgressFile = "progress"
	// GateOutcomeFile holds a GateOutcome as soon as there is one.
	GateOutcomeFile = "outcome"
	// GateCommand is the path of the waiting program in the image.
	GateCommand = "/restore-wait"
	// SchedulingGate in a restored pod's spec.schedulingGates keeps it from being
	// scheduled, where nothing could be found out that would let it wait at a gate.
	SchedulingGate = "estiba.dev/restore"
)

// GateState is how a restore ended for one pod.
type GateState string

// The states of a gate.
const (
	// GateOpen lets the pod start.
	GateOpen GateState = "open"
	// GateFailed keeps the pod from starting, with a message.
	GateFailed GateState = "failed"
)

// GateOutcome is the content of GateOutcomeFile. The file stays: an init
// container that is started again reads the same outcome again.
type GateOutcome struct {
	Version int       `json:"version"`
	State   GateState `json:"state"`
	// Message for people; empty where the gate opens.
	Message string `json:"message,omitempty"`
}

// Encode returns the file's content.
func (o GateOutcome) Encode() ([]byte, error) {
	o.Version = RecordVersion

	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode gate outcome: %w", err)
	}

	return append(b, '\n'), nil
}

// DecodeGateOutcome reads the file's content. Errors wrap ErrRecord.
func DecodeGateOutcome(b []byte) (GateOutcome, error) {
	var o GateOutcome
	if err := decode(string(b), &o, func() int { return o.Version }); err != nil {
		return GateOutcome{}, fmt.Errorf("gate outcome: %w", err)
	}

	if o.State != GateOpen && o.State != GateFailed {
		return GateOutcome{}, fmt.Errorf("gate outcome: %w: state %q", ErrRecord, o.State)
	}

	return o, nil
}
