package tree

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Nasty fills a folder with all that a backup is to bring back as it was: names of
// every kind, modes, owners, times, links, big, small and empty files. It needs
// root. Nothing in it is newer than some hours.
func Nasty(root string) error {
	b := &builder{root: root, rand: rand.NewChaCha8([32]byte{1})}

	b.names()
	b.modes()
	b.times()
	b.links()
	b.hardLinks()
	b.sizes()
	b.powerless()
	b.deep()

	b.mode(".", 0o2751)
	b.owner(".", 1000, 1001)
	b.age()

	return b.err
}

// Unkept puts beside it what can't be kept: a fifo, a socket, a device, holes. It returns how many of each there are.
func Unkept(root string) (map[string]int, error) {
	b := &builder{root: root, rand: rand.NewChaCha8([32]byte{2})}

	b.folder("unkept")
	b.do(unix.Mkfifo(b.path("unkept/fifo"), 0o600))
	b.do(unix.Mknod(b.path("unkept/socket"), unix.S_IFSOCK|0o600, 0))
	b.do(unix.Mknod(b.path("unkept/null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	b.file("unkept/holes", "start")
	b.do(os.Truncate(b.path("unkept/holes"), 1<<20))

	return map[string]int{"fifo": 1, "socket": 1, "device": 1, "holes": 1}, b.err
}

// builder keeps the first error.
type builder struct {
	root string
	rand *rand.ChaCha8
	err  error
}

func (b *builder) do(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) path(p string) string { return b.root + "/" + p }

func (b *builder) folder(p string) { b.do(os.MkdirAll(b.path(p), 0o755)) }

func (b *builder) file(p, content string) {
	b.do(os.WriteFile(b.path(p), []byte(content), 0o600))
}

func (b *builder) mode(p string, mode uint32) { b.do(unix.Chmod(b.path(p), mode)) }

func (b *builder) owner(p string, uid, gid int) { b.do(os.Lchown(b.path(p), uid, gid)) }

func (b *builder) names() {
	b.folder("names")

	for i, name := range []string{
		" ", "-", "-rf", "a b", "new\nline", "tab\t", "\x01\x02\x7f", `quo"te'`, `back\slash`, "*?[]", "~", "$HOME", "%s%d", "&<>", "...",
		strings.Repeat("x", 255), strings.Repeat("ä", 127), "\u00e9", "e\u0301", "日本", "🚢", "\u202egpj.exe", "\ufeff", "\ufffd",
		"bad-\xff", "bad-\xfe", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "esc-\U0010ff80", "esc-\U0010ffff", "a\xffb\U0010ffc3",
		"x.kopia-entry", ".kopiaignore-not", "con", "nul", "trailing.", "trailing ",
	} {
		b.file("names/"+name, fmt.Sprint(i))
		b.folder("names/d" + shorten(name))
		b.file("names/d"+shorten(name)+"/f", fmt.Sprint(i))
	}
}

func shorten(name string) string { return name[:min(len(name), 254)] }

func (b *builder) modes() {
	b.folder("modes")

	for _, m := range []uint32{0, 0o1, 0o400, 0o444, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o1644, 0o6711, 0o7777} {
		b.file(fmt.Sprintf("modes/f%04o", m), "mode")
		b.owner(fmt.Sprintf("modes/f%04o", m), 12345, 54321) // Changing it clears setuid: before the mode.
		b.mode(fmt.Sprintf("modes/f%04o", m), m)
		b.folder(fmt.Sprintf("modes/d%04o", m))
		b.file(fmt.Sprintf("modes/d%04o/f", m), "in it")
		b.mode(fmt.Sprintf("modes/d%04o", m), m)
	}

	b.file("modes/far-owner", "")
	b.owner("modes/far-owner", 4294967293, 4294967294)
}

func (b *builder) times() {
	b.folder("times")

	for _, ns := range []int64{-1, 0, 1, 999_999_999, -86_400_000_000_001, 1<<31*1_000_000_000 + 7, 5_000_000_000_123_456_789} {
		b.file(fmt.Sprintf("times/f%d", ns), "time")
		b.stamp(fmt.Sprintf("times/f%d", ns), ns)
		b.folder(fmt.Sprintf("times/d%d", ns))
		b.file(fmt.Sprintf("times/d%d/f", ns), "in it")
		b.stamp(fmt.Sprintf("times/d%d", ns), ns)
	}
}

func (b *builder) stamp(p string, ns int64) {
	t := unix.NsecToTimespec(ns)
	b.do(unix.UtimesNanoAt(unix.AT_FDCWD, b.path(p), []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW))
}

func (b *builder) links() {
	b.folder("links/into")

	for name, target := range map[string]string{
		"plain": "into", "dangling": "nowhere", "absolute": "/etc/passwd", "up": "../../../../..", "self": "self", "bytes": "\xff\xfe",
		"long": strings.Repeat("l", 4000), "into/loop": "../into", "space": " ",
	} {
		b.do(os.Symlink(target, b.path("links/"+name)))
		b.owner("links/"+name, 7, 8)
		b.stamp("links/"+name, 1_600_000_000_123_456_789)
	}
}

func (b *builder) hardLinks() {
	b.folder("hard/a/b")
	b.folder("hard/closed")

	for name, others := range map[string][]string{
		"hard/one": {"hard/two"}, "hard/a/b/deep": {"hard/up", "hard/closed/in"}, "hard/bytes-\xff": {"hard/a/\xfe", "hard/\U0010ff80"},
		"hard/empty": {"hard/a/empty"}, "hard/setuid": {"hard/setuid too"}, "hard/zz": {"hard/a/zz", "hard/a/b/zz", "hard/Zz", "hard/closed/zz"},
	} {
		b.file(name, strings.Repeat(name, 5000)[:5000*min(len(others)-1, 1)])
		b.owner(name, 7, 8)

		for _, other := range others {
			b.do(os.Link(b.path(name), b.path(other)))
		}
	}

	// Another file of the same content, owner and times is another file.
	b.file("hard/one's twin", "")
	b.owner("hard/one's twin", 7, 8)
	b.mode("hard/setuid", 0o4511)
	b.mode("hard/closed", 0)

	for i, name := range []string{"one", "one's twin", "empty", "setuid", "zz", "a/b/deep", "bytes-\xff"} {
		b.stamp("hard/"+name, 1_600_000_000_123_456_789+int64(max(i-1, 0)))
	}
}

func (b *builder) sizes() {
	b.folder("sizes/empty-folder")

	for _, n := range []int{0, 1, 4095, 4096, 4097, 1<<20 + 1, 4 << 20, 4<<20 + 1, 9 << 20} {
		data := make([]byte, n)
		_, err := b.rand.Read(data)
		b.do(err)
		b.file(fmt.Sprintf("sizes/random-%d", n), string(data))
		b.file(fmt.Sprintf("sizes/text-%d", n), string(bytes.Repeat([]byte("stowage\n"), n/8)))
	}
}

// powerless are the files by which kopia, backup programs and build tools let
// themselves be steered.
func (b *builder) powerless() {
	b.folder("powerless/sub")
	b.file("powerless/.kopiaignore", "*\n")
	b.file("powerless/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n")
	b.file("powerless/sub/.nobackup", "")
	b.file("powerless/sub/ignored", "not ignored")
	b.file("powerless/entry.kopia-entry", `{"name":"../../escape","type":"d","mode":"0755","obj":"k0123456789abcdef0123456789abcdef"}`)
	b.folder("powerless/sub/folder.kopia-entry")
	b.file("powerless/sub/folder.kopia-entry/.kopia-entry", "{}")
	b.folder("powerless/.velero")
	b.file("powerless/.velero/x", "x")
	b.do(os.Symlink("/etc", b.path("powerless/sub/.kopiaignore")))
}

func (b *builder) deep() {
	p := "deep"
	for range 40 {
		p += "/" + strings.Repeat("d", 50)
	}

	b.folder(p)
	b.file(p+"/bottom", "bottom")
}

// age sets what still bears the time of its making some hours back, so that no
// later backup has to doubt whether it changed.
func (b *builder) age() {
	now := time.Now()
	old := now.Add(-5*time.Hour).Truncate(time.Second).UnixNano() + 123_456_789

	var paths []string

	b.do(filepath.WalkDir(b.root, func(p string, _ os.DirEntry, err error) error {
		paths = append(paths, p)

		return err
	}))

	for i := len(paths) - 1; i >= 0; i-- {
		info, err := os.Lstat(paths[i])
		b.do(err)

		if err == nil && now.Sub(info.ModTime()).Abs() < time.Hour {
			rel, err := filepath.Rel(b.root, paths[i])
			b.do(err)
			b.stamp(rel, old+int64(i))
		}
	}
}
