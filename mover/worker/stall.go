package worker

import (
	"context"
	"time"

	"github.com/estiba-dev/estiba/mover/engine"
)

// How many ticks of the volume's clocks make up the bound of a call, and that of a sync: much may have been
// written before it.
const (
	callTicks = 5
	syncTicks = 12 * callTicks
)

// watchVolume calls stop once a call to the volume has not come back for the bound, until ctx is done. A volume's storage
// that doesn't answer can't be told otherwise: the call ends when it answers, or with the machine.
func watchVolume(ctx context.Context, bound time.Duration, tick func() (call, sync int), stop func(error)) {
	if bound <= 0 || tick == nil {
		return
	}

	t := time.NewTicker(bound / callTicks)
	defer t.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}

		// The tick that a call began in has not passed as a whole.
		if call, sync := tick(); call > callTicks || sync > syncTicks {
			stop(engine.Errorf(engine.CodeVolumeHung, "a call to the volume has not come back for %s", bound))
			return
		}
	}
}

// withHung has the job end with what has stopped it, if that is the volume.
func withHung(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && engine.CodeOf(cause) == engine.CodeVolumeHung {
		return cause
	}

	return err
}
