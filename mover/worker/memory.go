package worker

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// lookAtMemory is how often the runtime's limit is fitted to what the job holds.
	lookAtMemory = 250 * time.Millisecond
	// beside is what the runtime may use beside a quarter more than what is alive, in bytes.
	beside = 32 << 20
)

// runtimeLimit is the limit for the runtime's memory, in bytes, when so much of it is alive: at least the
// one that it began with, so that it collects its garbage in time to stay within the worker's ceiling. A job that holds more
// than that needs room to work in, or it would do nothing but collect; the daemon sees to what all workers use together.
func runtimeLimit(alive, least, most int64) int64 {
	return max(least, min(alive+alive/4+beside, most))
}

// fitMemory fits the runtime's memory limit to what the job holds until ctx is done; most is what the worker may ever
// use, in bytes, and 0 if there is no bound.
func fitMemory(ctx context.Context, most int64) {
	least := debug.SetMemoryLimit(-1)
	if most <= 0 || least == math.MaxInt64 {
		return
	}

	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}

	tick := time.NewTicker(lookAtMemory)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			metrics.Read(sample)

			if alive := sample[0].Value; alive.Kind() == metrics.KindUint64 {
				debug.SetMemoryLimit(runtimeLimit(int64(min(alive.Uint64(), math.MaxInt64/2)), least, most/4*3))
			}
		}
	}
}
