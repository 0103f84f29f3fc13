package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Data says what FillVolume writes.
type Data struct {
	// Files is the number of regular files.
	Files int
	// Bytes is the size of all of them together, in bytes.
	Bytes int64
	// Seed makes the content; two fills with different seeds share nothing.
	Seed uint64
}

// FillVolume writes files into a volume's folder, as root and from outside the
// pod: in folders of a hundred, with many owners and modes, times with
// nanoseconds, symbolic links (dangling ones, too), empty files and folders and
// names that are awkward. The same Data makes the same tree.
func FillVolume(dir string, d Data) error {
	rng := rand.New(rand.NewPCG(d.Seed, 1))
	fill := filler{root: dir, rng: rng, start: time.Unix(1_600_000_000, 0)}

	if err := fill.files(d); err != nil {
		return err
	}

	if err := fill.oddities(); err != nil {
		return err
	}

	return fill.stampFolders()
}

type filler struct {
	root    string
	rng     *rand.Rand
	start   time.Time
	folders []string
}

func (f *filler) files(d Data) error {
	if d.Files == 0 {
		return nil
	}

	// A third of the bytes lies in one big file, the rest in equal small ones.
	big := d.Bytes / 3
	small := (d.Bytes - big) / int64(d.Files)

	for i := range d.Files {
		folder := filepath.Join(f.root, fmt.Sprintf("folder-%03d", i/100))
		if i%100 == 0 {
			if err := f.folder(folder); err != nil {
				return err
			}
		}

		if err := f.file(filepath.Join(folder, fmt.Sprintf("file-%05d", i)), small, i); err != nil {
			return err
		}
	}

	return f.file(filepath.Join(f.root, "big"), big, 0)
}

func (f *filler) folder(path string) error {
	f.folders = append(f.folders, path)

	return os.Mkdir(path, 0o755)
}

func (f *filler) file(path string, size int64, i int) error {
	content := make([]byte, size)
	for p := 0; p+8 <= len(content); p += 8 {
		v := f.rng.Uint64()
		for b := range 8 {
			content[p+b] = byte(v >> (8 * b))
		}
	}

	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}

	return f.stamp(path, i)
}

// stamp sets owner, mode and time of a file. The mode goes last but one: chown drops setuid.
func (f *filler) stamp(path string, i int) error {
	if err := os.Chown(path, 1000+i%7, 2000+i%5); err != nil {
		return err
	}

	modes := []os.FileMode{0o644, 0o600, 0o755, 0o400, 0o000, 0o755 | os.ModeSetuid, 0o755 | os.ModeSetgid}
	if err := os.Chmod(path, modes[i%len(modes)]); err != nil {
		return err
	}

	return os.Chtimes(path, f.time(i), f.time(i))
}

func (f *filler) time(i int) time.Time {
	return f.start.Add(time.Duration(i)*time.Hour + time.Duration(i*7919%1_000_000_000))
}

func (f *filler) oddities() error {
	odd := filepath.Join(f.root, "odd")
	if err := f.folder(odd); err != nil {
		return err
	}

	for i, name := range []string{"new\nline", " spaces ", "quote'\"", "ünï-cödé", "not-utf8-\xff\xfe", "-rf", ".kopiaignore", "CACHEDIR.TAG", "x.kopia-entry"} {
		if err := f.file(filepath.Join(odd, name), int64(10+i), i); err != nil {
			return err
		}
	}

	for _, empty := range []string{"empty-folder", "nested"} {
		if err := f.folder(filepath.Join(odd, empty)); err != nil {
			return err
		}
	}

	for name, target := range map[string]string{"link": "ünï-cödé", "dangling": "/nowhere/at/all", "loop": "loop", "up": "../../../../etc/hostname"} {
		if err := os.Symlink(target, filepath.Join(odd, name)); err != nil {
			return err
		}

		if err := os.Lchown(filepath.Join(odd, name), 1234, 4321); err != nil {
			return err
		}
	}

	return f.file(filepath.Join(odd, "nested", "empty"), 0, 3)
}

// stampFolders comes last: whatever is made in a folder changes its time.
func (f *filler) stampFolders() error {
	for i := len(f.folders) - 1; i >= 0; i-- {
		if err := os.Chown(f.folders[i], 1000, 2000); err != nil {
			return err
		}

		mode := os.FileMode(0o750)
		if i%5 == 0 {
			mode |= os.ModeSticky
		}

		if err := os.Chmod(f.folders[i], mode); err != nil {
			return err
		}

		if err := os.Chtimes(f.folders[i], f.time(i), f.time(i)); err != nil {
			return err
		}
	}

	return nil
}
