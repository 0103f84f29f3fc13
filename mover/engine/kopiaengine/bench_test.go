package kopiaengine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// peakHeap returns the most memory, in bytes, that the heap took while f ran, beyond
// what was there before, as the garbage collector saw it.
func peakHeap(f func()) uint64 {
	const heap = "/memory/classes/heap/objects:bytes"

	// Twice: what lies in a pool outlives the first one.
	runtime.GC()
	runtime.GC()

	before := []metrics.Sample{{Name: heap}}
	metrics.Read(before)

	stop, peak := make(chan struct{}), make(chan uint64)

	go func() {
		var most uint64

		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()

		sample := []metrics.Sample{{Name: heap}}

		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())

			select {
			case <-stop:
				peak <- most

				return
			case <-t.C:
			}
		}
	}()

	f()
	close(stop)

	return <-peak - before[0].Value.Uint64()
}

func sized(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}

	return otherwise
}

// BenchmarkAgainstCp compares a backup, an unchanged one and a restore with `cp -a`
// of the same tree in the same run. ESTIBA_BENCH_FILES is the number of small files
// (4 KiB), ESTIBA_BENCH_MB the size of one big file; both default to little.
func BenchmarkAgainstCp(b *testing.B) {
	needRoot(b)

	small, big := b.TempDir(), b.TempDir()
	randomFiles(b, small, sized("ESTIBA_BENCH_FILES", 2000), 4<<10)
	randomFiles(b, big, 1, sized("ESTIBA_BENCH_MB", 64)<<20)

	for name, volume := range map[string]string{"small": small, "big": big} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				compareWithCp(b, volume)
			}
		})
	}
}

func compareWithCp(b *testing.B, volume string) {
	b.Helper()

	run := func(f func()) time.Duration {
		begun := time.Now()

		f()

		return time.Since(begun)
	}

	b.StopTimer()

	copied := filepath.Join(b.TempDir(), "copy")
	target := b.TempDir()
	e := newEngineAt(b, store(b, b.TempDir()), 10*time.Minute)

	b.StartTimer()

	cp := run(func() { require.NoError(b, exec.CommandContext(b.Context(), "cp", "-a", volume, copied).Run()) })

	var first, again, back time.Duration

	up := peakHeap(func() { first = run(func() { backup(b, e, volume, "vb-1") }) })
	again = run(func() { backup(b, e, volume, "vb-2") })
	down := peakHeap(func() { back = run(func() { restore(b, e, "vb-2", target) }) })

	b.ReportMetric(first.Seconds()/cp.Seconds(), "backup/cp")
	b.ReportMetric(again.Seconds()/cp.Seconds(), "again/cp")
	b.ReportMetric(back.Seconds()/cp.Seconds(), "restore/cp")
	b.Logf("cp %.2fs, backup %.2fs (heap %d MiB), again %.2fs, restore %.2fs (heap %d MiB)",
		cp.Seconds(), first.Seconds(), up>>20, again.Seconds(), back.Seconds(), down>>20)
}
