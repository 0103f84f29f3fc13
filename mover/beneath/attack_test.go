package beneath_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

const (
	// attackerVolume and attackerCanary make the test binary an attacker of the
	// volume in the first with links to the tree in the second.
	attackerVolume = "ESTIBA_TEST_ATTACKER_VOLUME"
	attackerCanary = "ESTIBA_TEST_ATTACKER_CANARY"
	// attackSeconds is how long each attack lasts.
	attackSeconds = "ESTIBA_ATTACK_SECONDS"
	// targets is how many folders, and how many files, are attacked.
	targets = 4
	secret  = "canary content, which nobody may see"
	// tooMuch is more than any file has, in bytes; a device would give it.
	tooMuch = 1 << 16
)

func TestMain(m *testing.M) {
	if volume := os.Getenv(attackerVolume); volume != "" {
		attack(volume, os.Getenv(attackerCanary))
		return
	}
	if os.Getenv(olderKernel) != "" {
		if err := hideOpenat2(); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// attack swaps d0 and l0, f0 and g0, h0 and p0 and so on as fast as it can until its
// standard input ends. One of each pair is meant to be a bait: a link out of the volume,
// or a pipe or device that whoever opens or reads it never comes back from. Where the
// victim has removed it, it is put there again.
func attack(volume, canary string) {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	if err := os.Chdir(volume); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for round := 0; ; round++ {
		select {
		case <-done:
			return
		default:
		}
		for i := range targets {
			link := func(target string) func(string) error {
				return func(name string) error { return os.Symlink(target, name) }
			}
			swap(fmt.Sprint("d", i), fmt.Sprint("l", i), link(canary), round)
			swap(fmt.Sprint("f", i), fmt.Sprint("g", i), link(filepath.Join(canary, "secret")), round)
			swap(fmt.Sprint("h", i), fmt.Sprint("p", i), func(name string) error { return plantSpecial(name, i) }, round)
		}
	}
}

func swap(victim, bait string, plant func(name string) error, round int) {
	if unix.Renameat2(unix.AT_FDCWD, victim, unix.AT_FDCWD, bait, unix.RENAME_EXCHANGE) == nil && round%8 != 0 {
		return
	}
	if isBait(victim) || isBait(bait) {
		return
	}
	trash := filepath.Join("trash", strconv.Itoa(round)+bait)
	_ = os.Rename(bait, trash)
	_ = plant(bait)
	_ = os.RemoveAll(trash)
}

// plantSpecial makes a pipe that nobody writes to, a device that never ends, a disk that nobody has, or a terminal.
func plantSpecial(name string, i int) error {
	if i == 0 || os.Geteuid() != 0 {
		return unix.Mkfifo(name, 0o644)
	}
	return unix.Mknod(name, []uint32{0, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFCHR}[i]|0o644, int([]uint64{0, unix.Mkdev(1, 5), unix.Mkdev(259, 70000), unix.Mkdev(5, 0)}[i]))
}

func isBait(name string) bool {
	st, err := os.Lstat(name)
	return err == nil && st.Mode()&(os.ModeSymlink|os.ModeNamedPipe|os.ModeDevice) != 0
}

func isLink(name string) bool {
	st, err := os.Lstat(name)
	return err == nil && st.Mode()&os.ModeSymlink != 0
}

// startAttack makes a volume with targets in it and a canary tree, and has a second
// process attack the volume until the test ends.
func startAttack(t *testing.T) (volume, canary string) {
	t.Helper()
	volume, canary = t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(volume, "trash"), 0o755))
	for i := range targets {
		fillTarget(t, filepath.Join(volume, fmt.Sprint("d", i)), "innocent")
		require.NoError(t, os.WriteFile(filepath.Join(volume, fmt.Sprint("f", i)), []byte("innocent"), 0o644))
		require.NoError(t, os.Symlink(canary, filepath.Join(volume, fmt.Sprint("l", i))))
		require.NoError(t, os.Symlink(filepath.Join(canary, "secret"), filepath.Join(volume, fmt.Sprint("g", i))))
		require.NoError(t, os.WriteFile(filepath.Join(volume, fmt.Sprint("h", i)), []byte("innocent"), 0o644))
		require.NoError(t, plantSpecial(filepath.Join(volume, fmt.Sprint("p", i)), i))
	}
	fillTarget(t, canary, secret)
	require.NoError(t, os.WriteFile(filepath.Join(canary, "only in the canary"), []byte(secret), 0o644))

	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), attackerVolume+"="+volume, attackerCanary+"="+canary)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, stdin.Close())
		require.NoError(t, cmd.Wait())
	})
	_, err = io.ReadFull(stdout, make([]byte, len("ready\n")))
	require.NoError(t, err)
	return volume, canary
}

func fillTarget(t *testing.T, dir, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	for _, name := range []string{"secret", "other", filepath.Join("sub", "inner")} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	require.NoError(t, os.Symlink(content, filepath.Join(dir, "link")))
}

// canaryState is all that an attack could change, and what shows that it was changed back.
func canaryState(t *testing.T, canary string) map[string]string {
	t.Helper()
	state := inventory(t, canary)
	require.NoError(t, filepath.WalkDir(canary, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(canary, path)
		state[rel] += fmt.Sprintf(" mode=%o owner=%d:%d nlink=%d ino=%d mtime=%v ctime=%v", st.Mode, st.Uid, st.Gid, st.Nlink, st.Ino, st.Mtim, st.Ctim)
		return err
	}))
	return state
}

func attackDuration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(attackSeconds)
	if text == "" {
		return 3 * time.Second
	}
	seconds, err := strconv.Atoi(text)
	require.NoError(t, err, attackSeconds)
	return time.Duration(seconds) * time.Second
}

// during repeats f for the time, and for up to a minute more until it reports that
// the attacker has hit: on a busy machine it may hardly get to run.
func during(d time.Duration, f func() bool) {
	for start := time.Now(); ; {
		hit := f()
		if past := time.Since(start); past >= d && (hit || past >= d+time.Minute) {
			return
		}
	}
}

// tally counts how an attacked operation ended.
type tally struct {
	t                  *testing.T
	ok, refused, other atomic.Int64
}

func (c *tally) count(err error) bool {
	switch {
	case err == nil:
		c.ok.Add(1)
	case errors.Is(err, beneath.ErrChanged), errors.Is(err, beneath.ErrVanished), errors.Is(err, beneath.ErrKind), errors.Is(err, beneath.ErrBusy):
		c.refused.Add(1)
	default:
		if c.other.Add(1) <= 3 {
			c.t.Logf("another error: %v", err)
		}
	}
	return err == nil
}

// report makes sure that the attack met the work: some of it succeeded, some of it
// was disturbed, and nothing failed for another reason.
func (c *tally) report() {
	c.t.Helper()
	c.t.Logf("%d operations succeeded, %d were refused, %d failed otherwise", c.ok.Load(), c.refused.Load(), c.other.Load())
	require.Positive(c.t, c.ok.Load())
	require.Positive(c.t, c.refused.Load(), "the attacker never hit")
	require.Zero(c.t, c.other.Load())
}

func TestAttackedReadingSeesNothingOutside(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			volume, canary := startAttack(t)
			before := canaryState(t, canary)
			root := openRoot(t, volume, o)
			c := tally{t: t}
			during(attackDuration(t), func() bool {
				readAttacked(t, root.Dir(), &c)
				return c.refused.Load() > 0
			})
			c.report()
			require.Equal(t, before, canaryState(t, canary))
		})
	}
}

func readAttacked(t *testing.T, d *beneath.Dir, c *tally) {
	t.Helper()
	l, err := d.List()
	if !c.count(err) {
		return
	}
	defer l.Close()
	for {
		entries, err := l.Next(3)
		if errors.Is(err, io.EOF) || !c.count(err) {
			return
		}
		for _, e := range entries {
			require.NotEqual(t, "only in the canary", e.Name, "the canary was listed")
			readAttackedEntry(t, d, e, c)
		}
	}
}

func readAttackedEntry(t *testing.T, d *beneath.Dir, e beneath.Entry, c *tally) {
	t.Helper()
	switch e.Kind {
	case beneath.KindDirectory:
		if e.Name == "trash" {
			return
		}
		sub, err := d.OpenDir(e)
		if !c.count(err) {
			return
		}
		readAttacked(t, sub, c)
		require.NoError(t, sub.Close())
	case beneath.KindRegular:
		f, err := d.OpenFile(e)
		if !c.count(err) {
			return
		}
		content, err := io.ReadAll(io.LimitReader(f, tooMuch))
		c.count(err)
		require.Less(t, len(content), tooMuch, "a device was read")
		require.False(t, bytes.Contains(content, []byte("canary")), "the canary was read")
		require.NoError(t, f.Close())
	case beneath.KindSymlink:
		target, err := d.ReadLink(e)
		if c.count(err) {
			require.NotEqual(t, secret, target, "the canary was read")
		}
	default:
	}
}

func TestAttackedWritingChangesNothingOutside(t *testing.T) {
	for mode, o := range modes() {
		t.Run(mode, func(t *testing.T) {
			volume, canary := startAttack(t)
			before := canaryState(t, canary)
			root := openRoot(t, volume, o)
			c := tally{t: t}
			round := 0
			during(attackDuration(t), func() bool {
				writeAttacked(t, root.Dir(), round, &c)
				round++
				return c.refused.Load() > 0
			})
			c.report()
			require.Equal(t, before, canaryState(t, canary))
		})
	}
}

func foreign(round int) beneath.Attrs {
	a := beneath.Attrs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mode: 0o711, ModTime: time.Unix(int64(round), 1)}
	if os.Geteuid() == 0 {
		a.UID, a.GID = 12345, 12345
	}
	return a
}

// writeAttacked restores each attacked folder, file and link once, and removes some.
func writeAttacked(t *testing.T, root *beneath.Dir, round int, c *tally) {
	t.Helper()
	for i := range targets {
		dir, file, link := fmt.Sprint("d", i), fmt.Sprint("f", i), fmt.Sprint("l", i)
		sub, err := root.MakeDir(dir)
		if c.count(err) {
			writeInto(t, sub, round, c)
			require.NoError(t, sub.Close())
		}
		c.count(writeFile(root, file, round))
		c.count(writeFile(root, fmt.Sprint("h", i), round))
		switch (round + i) % 8 {
		case 0:
			c.count(root.RemoveAll(dir))
		case 1:
			c.count(root.MakeSymlink(file, "nowhere", foreign(round)))
		case 2:
			c.count(writeFile(root, dir, round))
		case 3:
			sub, err := root.MakeDir(link)
			if c.count(err) {
				writeInto(t, sub, round, c)
				require.NoError(t, sub.Close())
			}
		}
	}
}

func writeInto(t *testing.T, d *beneath.Dir, round int, c *tally) {
	t.Helper()
	c.count(writeFile(d, "secret", round))
	c.count(d.MakeSymlink("link", "elsewhere", foreign(round)))
	c.count(d.RemoveAll("other"))
	if inner, err := d.MakeDir("sub"); c.count(err) {
		c.count(writeFile(inner, "inner", round))
		c.count(inner.SetAttrs(foreign(round)))
		require.NoError(t, inner.Close())
	}
	_, err := d.SweepTemps()
	c.count(err)
	c.count(d.SetAttrs(foreign(round)))
}

func writeFile(d *beneath.Dir, name string, round int) error {
	f, err := d.CreateFile(name, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("restored"))
	if err == nil {
		err = f.Commit(foreign(round))
	}
	return errors.Join(err, f.Abort())
}

// TestTheAttackerIsDangerous is the control: the same attacker does get the canary
// from those who go by path.
func TestTheAttackerIsDangerous(t *testing.T) {
	t.Run("who reads by path is led outside", func(t *testing.T) {
		volume, _ := startAttack(t)
		reads, leaks := 0, 0
		during(0, func() bool {
			reads++
			for _, path := range []string{"d0/secret", "f0"} {
				// Like a walker by path: it has just seen no link there.
				if isLink(filepath.Join(volume, path[:2])) {
					continue
				}
				if content, _ := os.ReadFile(filepath.Join(volume, path)); string(content) == secret {
					leaks++
				}
			}
			return leaks >= 10
		})
		t.Logf("%d leaks in %d rounds", leaks, reads)
		require.Positive(t, leaks, "the attacker is harmless: the other tests prove nothing")
	})
	t.Run("who writes by path is led outside", func(t *testing.T) {
		volume, canary := startAttack(t)
		writes, hits := 0, 0
		during(0, func() bool {
			writes++
			if isLink(filepath.Join(volume, "d0")) {
				return false
			}
			_ = os.WriteFile(filepath.Join(volume, "d0", "secret"), []byte("overwritten"), 0o644)
			if content, err := os.ReadFile(filepath.Join(canary, "secret")); err != nil || string(content) != secret {
				hits++
			}
			return hits > 0
		})
		t.Logf("hit in round %d", writes)
		require.Positive(t, hits, "the attacker is harmless: the other tests prove nothing")
	})
}
