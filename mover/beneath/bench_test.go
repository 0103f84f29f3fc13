package beneath_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/beneath"
)

const (
	benchDirs        = 300
	benchFilesPerDir = 100
	benchFileSize    = 4 << 10
)

func benchTree(b *testing.B) string {
	b.Helper()
	top := b.TempDir()
	writeNaively(b, top, make([]byte, benchFileSize))
	return top
}

func writeNaively(b *testing.B, top string, content []byte) {
	b.Helper()
	for i := range benchDirs {
		dir := filepath.Join(top, fmt.Sprintf("dir%04d", i))
		require.NoError(b, os.Mkdir(dir, 0o755))
		for j := range benchFilesPerDir {
			require.NoError(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%04d", j)), content, 0o644))
		}
	}
}

// BenchmarkRead walks and reads 30,000 files, and does so with filepath.WalkDir and
// os.ReadFile in turn: the metric naive/ours is above 1 where the package is faster.
func BenchmarkRead(b *testing.B) {
	for name, o := range modes() {
		b.Run(name, func(b *testing.B) {
			top := benchTree(b)
			root := openRoot(b, top, o)
			var naive, ours time.Duration
			want := int64(benchDirs * benchFilesPerDir * benchFileSize)
			buf := make([]byte, 64<<10)
			for b.Loop() {
				start := time.Now()
				require.Equal(b, want, readNaively(b, top))
				naive += time.Since(start)
				start = time.Now()
				require.Equal(b, want, readBench(b, root.Dir(), buf))
				ours += time.Since(start)
			}
			b.ReportMetric(naive.Seconds()/ours.Seconds(), "naive/ours")
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N)/(benchDirs*benchFilesPerDir), "µs/file")
		})
	}
}

func readNaively(b *testing.B, top string) (sum int64) {
	b.Helper()
	require.NoError(b, filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		sum += int64(len(content))
		return err
	}))
	return sum
}

func readBench(b *testing.B, d *beneath.Dir, buf []byte) (sum int64) {
	b.Helper()
	l, err := d.List()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for {
		entries, err := l.Next(256)
		if errors.Is(err, io.EOF) {
			return sum
		}
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries {
			if e.Kind == beneath.KindDirectory {
				sub, err := d.OpenDir(e)
				if err != nil {
					b.Fatal(err)
				}
				sum += readBench(b, sub, buf)
				_ = sub.Close()
				continue
			}
			sum += readBenchFile(b, d, e, buf)
		}
	}
}

func readBenchFile(b *testing.B, d *beneath.Dir, e beneath.Entry, buf []byte) (sum int64) {
	b.Helper()
	f, err := d.OpenFile(e)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for {
		n, err := f.Read(buf)
		sum += int64(n)
		if errors.Is(err, io.EOF) {
			return sum
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWrite writes 30,000 files with owner, mode and times, atomically, and
// writes them in turn with os.WriteFile, which sets none of these.
func BenchmarkWrite(b *testing.B) {
	for name, o := range modes() {
		b.Run(name, func(b *testing.B) {
			content := make([]byte, benchFileSize)
			var naive, ours time.Duration
			for i := 0; b.Loop(); i++ {
				top := b.TempDir()
				root := openRoot(b, top, o)
				plain, err := root.Dir().MakeDir("plain")
				require.NoError(b, err)
				beneathDir, err := root.Dir().MakeDir("beneath")
				require.NoError(b, err)
				// In turn first and second, as the second finds the disk busy.
				if i%2 == 0 {
					naive += timed(func() { writeNaively(b, filepath.Join(top, "plain"), content) })
					ours += timed(func() { writeBench(b, beneathDir, content) })
				} else {
					ours += timed(func() { writeBench(b, beneathDir, content) })
					naive += timed(func() { writeNaively(b, filepath.Join(top, "plain"), content) })
				}
				require.NoError(b, errors.Join(plain.Close(), beneathDir.Close()))
				require.NoError(b, os.RemoveAll(filepath.Join(top, "plain")))
				require.NoError(b, os.RemoveAll(filepath.Join(top, "beneath")))
			}
			b.ReportMetric(naive.Seconds()/ours.Seconds(), "naive/ours")
			b.ReportMetric(float64(ours.Microseconds())/float64(b.N)/(benchDirs*benchFilesPerDir), "µs/file")
		})
	}
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func writeBench(b *testing.B, top *beneath.Dir, content []byte) {
	b.Helper()
	attrs := beneath.Attrs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mode: 0o644, ModTime: time.Unix(1_700_000_000, 1)}
	for i := range benchDirs {
		dir, err := top.MakeDir(fmt.Sprintf("dir%04d", i))
		if err != nil {
			b.Fatal(err)
		}
		for j := range benchFilesPerDir {
			f, err := dir.CreateFile(fmt.Sprintf("file%04d", j), benchFileSize)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := f.Write(content); err != nil {
				b.Fatal(err)
			}
			if err := f.Commit(attrs); err != nil {
				b.Fatal(err)
			}
		}
		attrs.Mode = 0o755
		if err := errors.Join(dir.SetAttrs(attrs), dir.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
