package nodevolume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Why a volume was not opened. They stand in the error's chain.
var (
	// ErrNoVolume: the kubelet has no such volume of the pod on this node, or not yet.
	ErrNoVolume = errors.New("the volume is not on this node")
	// ErrNotMounted: the volume's folder is there, but nothing is mounted on it, or not yet.
	ErrNotMounted = errors.New("the volume is not mounted")
	// ErrAmbiguous: more than one folder could be the volume.
	ErrAmbiguous = errors.New("more than one folder could be the volume")
	// ErrHostPath: the volume is a folder of the node that the kubelet hands to
	// the pod directly, and it is not to be seen here.
	ErrHostPath = errors.New("the folder of the node can't be opened")
	// ErrName: a name is none that the kubelet would make a folder of.
	ErrName = errors.New("not a name of a pod or a volume")
)

// The folders in which the kubelet keeps what we look at
// (kubernetes v1.33 pkg/kubelet/config/defaults.go, pkg/volume/*).
const (
	volumesFolder  = "volumes"
	emptyDirFolder = "kubernetes.io~empty-dir"
	nfsFolder      = "kubernetes.io~nfs"
	csiFolder      = "kubernetes.io~csi"
	csiMount       = "mount"
)

// Volume names one volume of one pod.
type Volume struct {
	// PodUID of the pod that mounts the volume.
	PodUID string
	// EmptyDir is the volume's name in the pod, for an emptyDir.
	EmptyDir string
	// NFS is the volume's name in the pod, for an inline NFS volume.
	NFS string
	// CSI is the volume's name in the pod, for an inline CSI volume.
	CSI string
	// PersistentVolume is the name of the PersistentVolume, for one behind a
	// PersistentVolumeClaim. One of the names, or HostPath alone, is set.
	PersistentVolume string
	// HostPath is the absolute path of a folder of the node, for a hostPath, also
	// as the source of a PersistentVolume.
	HostPath string
	// MustBeMounted wants a mount: before a PersistentVolume is mounted its folder
	// is there already (measured: 5 ms), and what is written then is lost.
	MustBeMounted bool
}

// Found says more on an opened volume.
type Found struct {
	// Mounted says that the folder is the root of a mount. Where the kernel does
	// not tell (before Linux 5.8), it is found by comparing with the folder above.
	Mounted bool
	// Path of the folder below the pods folder, for messages.
	Path string
}

// Finder finds volumes on this node.
type Finder struct {
	podsRoot string
	hostRoot string
	openat2  bool
}

// New makes a Finder for the kubelet's pods folder, as it is mounted here, and
// for those folders of the node that are mounted below hostRoot, each at its own path.
func New(podsRoot, hostRoot string) *Finder {
	return &Finder{podsRoot: podsRoot, hostRoot: hostRoot, openat2: true}
}

// Open opens the folder of a volume for reading its entries. It does not wait:
// the caller comes again where the error is ErrNoVolume or ErrNotMounted. The
// caller closes the file, and soon: an open one keeps the kubelet from unmounting.
func (f *Finder) Open(ctx context.Context, v Volume) (*os.File, Found, error) {
	file, found, err := f.open(ctx, v)
	if err != nil {
		return nil, Found{}, fmt.Errorf("open volume %s of pod %s: %w", cmp.Or(v.name(), v.HostPath), v.PodUID, err)
	}

	return file, found, nil
}

func (f *Finder) open(ctx context.Context, v Volume) (*os.File, Found, error) {
	if err := v.validate(); err != nil {
		return nil, Found{}, err
	}

	if v.HostPath != "" {
		return f.hostFolder(v.HostPath)
	}

	root, err := os.Open(f.podsRoot)
	if err != nil {
		return nil, Found{}, fmt.Errorf("open the kubelet's pods folder: %w", err)
	}
	defer func() { _ = root.Close() }()

	if err := ctx.Err(); err != nil {
		return nil, Found{}, fmt.Errorf("look for it: %w", context.Cause(ctx))
	}

	volumes, err := f.descend(root, v.PodUID, volumesFolder)
	if err != nil {
		return nil, Found{}, err
	}
	defer func() { _ = volumes.Close() }()

	names, err := f.path(volumes, v)
	if err != nil {
		return nil, Found{}, err
	}

	return f.last(volumes, v, names)
}

func (v Volume) validate() error {
	named := 0

	for _, name := range []string{v.EmptyDir, v.NFS, v.CSI, v.PersistentVolume} {
		if name != "" {
			named++
		}
	}

	if named > 1 || named == 0 && v.HostPath == "" {
		return fmt.Errorf("%w: exactly one of the names must be set", ErrName)
	}

	for _, name := range []string{v.PodUID, cmp.Or(v.name(), "hostpath")} {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("%w: %q", ErrName, name)
		}
	}

	return nil
}

func (v Volume) name() string { return cmp.Or(v.EmptyDir, v.NFS, v.CSI, v.PersistentVolume) }

// hostFolder opens a folder of the node. What is mounted here is what the
// administrator lets us see; links are not followed, for they lead out of it.
func (f *Finder) hostFolder(folder string) (*os.File, Found, error) {
	if !path.IsAbs(folder) || path.Clean(folder) == "/" || slices.Contains(strings.Split(folder, "/"), "..") {
		return nil, Found{}, fmt.Errorf("%w: %q", ErrName, folder)
	}

	above, err := os.Open(path.Dir(f.hostRoot))
	if err != nil {
		return nil, Found{}, fmt.Errorf("%w: look for what is mounted below %s: %w", ErrHostPath, f.hostRoot, err)
	}
	defer func() { _ = above.Close() }()

	names := strings.Split(strings.Trim(path.Clean(folder), "/"), "/")

	crossed := false

	file, err := f.walk(above, append([]string{path.Base(f.hostRoot)}, names...), func(above, at *os.File) error {
		root, err := mounted(above, at)
		crossed = crossed || root

		return err
	})
	if err != nil {
		return nil, Found{}, fmt.Errorf("%w: %s of the node is not to be found below %s; it must be a folder, be mounted there in the DaemonSet, and have no link on the way (%w)",
			ErrHostPath, folder, f.hostRoot, err)
	}

	if !crossed {
		// What the container's runtime makes on the way to a mount looks like a folder of the node, and is empty.
		return nil, Found{}, errors.Join(fmt.Errorf("%w: %s of the node is not mounted below %s, at most some folder in it is; mount it there in the DaemonSet",
			ErrHostPath, folder, f.hostRoot), file.Close())
	}

	return file, Found{Path: folder}, nil
}

// path returns the names from the pod's volumes folder down to the volume's.
func (f *Finder) path(volumes *os.File, v Volume) ([]string, error) {
	switch {
	case v.EmptyDir != "":
		return []string{emptyDirFolder, v.EmptyDir}, nil
	case v.NFS != "":
		return []string{nfsFolder, v.NFS}, nil
	case v.CSI != "":
		return []string{csiFolder, v.CSI, csiMount}, nil
	}

	plugins, err := volumes.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list the pod's volumes: %w", err)
	}

	var found [][]string

	for _, plugin := range plugins {
		if inline(plugin) {
			continue
		}

		names := []string{plugin, v.PersistentVolume}

		there, err := f.there(volumes, names)
		if err != nil {
			return nil, err
		}

		if !there {
			continue
		}

		if plugin == csiFolder {
			names = append(names, csiMount)
		}

		found = append(found, names)
	}

	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: none of the pod's %d kinds of volume has it", ErrNoVolume, len(plugins))
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("%w: %v", ErrAmbiguous, found)
	}
}

// inline recognizes the folders of volumes that never are PersistentVolumes. Their
// names are the pod's own choice, so one of them may be that of a PersistentVolume.
func inline(plugin string) bool {
	switch plugin {
	case emptyDirFolder, "kubernetes.io~configmap", "kubernetes.io~secret", "kubernetes.io~projected",
		"kubernetes.io~downward-api", "kubernetes.io~git-repo":
		return true
	default:
		return false
	}
}

// there reports whether there is a folder of these names.
func (f *Finder) there(dir *os.File, names []string) (bool, error) {
	file, err := f.descend(dir, names...)
	if errors.Is(err, ErrNoVolume) {
		return false, nil
	}

	if err != nil {
		return false, err
	}

	return true, file.Close()
}

// last opens the volume's folder and looks whether it is a mount.
func (f *Finder) last(volumes *os.File, v Volume, names []string) (*os.File, Found, error) {
	parent, err := f.descend(volumes, names[:len(names)-1]...)
	if err != nil {
		return nil, Found{}, err
	}
	defer func() { _ = parent.Close() }()

	file, err := f.step(parent, names[len(names)-1])
	if err != nil {
		return nil, Found{}, err
	}

	found := Found{Path: strings.Join(append([]string{v.PodUID, volumesFolder}, names...), "/")}

	found.Mounted, err = mounted(parent, file)
	if err == nil && v.MustBeMounted && !found.Mounted {
		err = fmt.Errorf("%w: nothing is mounted on %s", ErrNotMounted, found.Path)
	}

	if err != nil {
		return nil, Found{}, errors.Join(err, file.Close())
	}

	return file, found, nil
}

// descend opens a folder below another, name by name. The caller closes it.
func (f *Finder) descend(dir *os.File, names ...string) (*os.File, error) {
	return f.walk(dir, names, func(_, _ *os.File) error { return nil })
}

// walk descends, and shows each folder on the way together with the one above it.
func (f *Finder) walk(dir *os.File, names []string, passed func(above, at *os.File) error) (*os.File, error) {
	at := dir

	for _, name := range names {
		next, err := f.step(at, name)
		if err == nil {
			err = passed(at, next)
		}

		if at != dir {
			err = errors.Join(err, at.Close())
		}

		if err != nil {
			if next != nil {
				err = errors.Join(err, next.Close())
			}

			return nil, err
		}

		at = next
	}

	return at, nil
}

// step opens one folder in another. Mounts may be crossed: the pods folder is
// one, and so is each volume. Links may not.
func (f *Finder) step(dir *os.File, name string) (*os.File, error) {
	fd, err := f.openAt(int(dir.Fd()), name)

	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%w: no folder %s in %s", ErrNoVolume, name, dir.Name())
	case err != nil:
		return nil, fmt.Errorf("open %s in %s: %w", name, dir.Name(), err)
	}

	return os.NewFile(uintptr(fd), name), nil
}

func (f *Finder) openAt(dir int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

	if f.openat2 {
		fd, err := unix.Openat2(dir, name, &unix.OpenHow{
			Flags:   flags,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return fd, err
		}
	}

	// Before Linux 5.6, and under seccomp profiles that do not know openat2. One
	// name without a slash and no link: that is as good.
	return unix.Openat(dir, name, flags, 0)
}

// mounted reports whether the folder is the root of a mount.
func mounted(parent, file *os.File) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return false, fmt.Errorf("look at the volume's folder: %w", err)
	}

	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}

	// A bind mount of the same file system is not told by its device; that needs
	// the flag. Such a volume counts as not mounted, which stops rather than loses.
	var above unix.Statx_t
	if err := unix.Statx(int(parent.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &above); err != nil {
		return false, fmt.Errorf("look at the folder above the volume's: %w", err)
	}

	return st.Dev_major != above.Dev_major || st.Dev_minor != above.Dev_minor, nil
}
