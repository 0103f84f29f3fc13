package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/estiba-dev/estiba/mover/engine"
)

// What a report holds at most, whatever a worker says.
const (
	// maxValues bounds the values in a line: short ones in great number take many
	// times as much memory as the line.
	maxValues = 100_000
	// maxName bounds an ID, a reason or the like, in bytes.
	maxName = 256
	// maxList bounds lists of fences, of capabilities and of reasons.
	maxList = 64
)

// crowded reports whether a line has more values than any report.
func crowded(line []byte) bool {
	values := json.NewDecoder(bytes.NewReader(line))

	for range maxValues {
		if _, err := values.Token(); err != nil {
			return false // the line has ended, or is none
		}
	}

	return true
}

// Validate says what no worker that is sound reports: counts below zero, and words
// that go into metrics and objects and are endless or unknown.
func (p Report) Validate() error {
	if len(p.Writing) > maxName {
		return errors.New("writing is too long for a snapshot's ID")
	}

	if g := p.Progress; g != nil && min(g.BytesDone, g.TotalBytes, g.FilesDone, g.TotalFiles) < 0 {
		return fmt.Errorf("progress has a number below zero: %+v", *g)
	}

	if p.Fences != nil {
		if err := p.Fences.validate(); err != nil {
			return fmt.Errorf("fences: %w", err)
		}
	}

	if p.Result != nil {
		if err := p.Result.validate(); err != nil {
			return fmt.Errorf("result: %w", err)
		}
	}

	return nil
}

func (f Fences) validate() error {
	if max(len(f.Missing), len(f.Capabilities), len(f.Lacking)) > maxList {
		return errors.New("a list is too long")
	}

	for _, m := range f.Missing {
		switch m {
		case FenceLandlock, FenceReadOnlyVolume, FenceSeccomp, FenceOpenat2:
		default:
			return fmt.Errorf("missing has %.40q, which is none", m)
		}
	}

	return nil
}

func (r Result) validate() error {
	if b := r.Backup; b != nil {
		if b.LostPacks < 0 {
			return fmt.Errorf("backup.lostPacks is %d", b.LostPacks)
		}

		if err := validateMoved(b.SnapshotID, b.Summary); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}

	if t := r.Restore; t != nil {
		if err := validateMoved(t.SnapshotID, t.Summary); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}

	if r.Forget != nil && r.Forget.Deleted < 0 {
		return fmt.Errorf("forget.deleted is %d", r.Forget.Deleted)
	}

	return nil
}

func validateMoved(snapshot string, s engine.Summary) error {
	if len(snapshot) > maxName {
		return errors.New("snapshotID is too long")
	}

	if min(s.Files, s.Directories, s.Symlinks, s.Bytes, s.ReadBytes, s.StoredBytes) < 0 {
		return errors.New("summary has a number below zero")
	}

	if len(s.Omissions) > maxList {
		return fmt.Errorf("summary has %d reasons of omissions", len(s.Omissions))
	}

	for _, o := range s.Omissions {
		if o.Count < 0 || len(o.Reason) > maxName {
			return fmt.Errorf("summary has %d omissions for the reason %.40q", o.Count, o.Reason)
		}
	}

	return nil
}
