// Package config is the settings of the mover's processes: read from flags and
// the environment here and nowhere else, and checked as a whole before anything starts.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/state"
)

// Role is the process that the settings are for.
type Role string

// The roles.
const (
	// RoleNode is the daemon of a node.
	RoleNode Role = "node"
	// RoleController is the controller of the cluster.
	RoleController Role = "controller"
)

// Config is all settings.
type Config struct {
	// Role of the process.
	Role Role
	// Namespace of Velero, and of all of Estiba's objects.
	Namespace string
	// NodeName is the node of a daemon.
	NodeName string
	// PodsRoot is where the kubelet's pods folder is mounted.
	PodsRoot string
	// HostRoot is where those folders of the node are mounted, each at its own
	// path, that hostPath volumes may be moved of; it need not exist.
	HostRoot string
	// CacheDir is a folder for the caches of repositories.
	CacheDir string
	// MetadataCache and ContentCache bound the two caches of each repository, in bytes.
	MetadataCache, ContentCache int64
	// CacheTotal bounds the caches of all repositories together, in bytes.
	CacheTotal int64
	// MetricsAddress and HealthAddress are where metrics and probes are served.
	MetricsAddress, HealthAddress string
	// LogLevel is debug, info or error.
	LogLevel string
	// LeaderElection lets one of several controllers work.
	LeaderElection bool
	// Heartbeat is how often a daemon renews its Lease.
	Heartbeat time.Duration
	// Drain is how long workers may take to end when the process is stopped.
	Drain time.Duration
	// Slots is how many workers run at a time, Reserved how many more are planned for frozen applications.
	Slots, Reserved int
	// MemoryLimit of the container, in bytes; 0 finds it out.
	MemoryLimit int64
	// MemoryShare is what of it the daemon keeps for itself, in bytes.
	MemoryShare int64
	// Strict refuses to run a worker where the kernel lacks a fence.
	Strict bool
	// Format of new repositories.
	Format engine.Format
	// UploadLimit and DownloadLimit bound the bytes per second to and from object stores; 0 means no bound.
	UploadLimit, DownloadLimit int64
	// StoreRetry bounds how long a failing request to a store is repeated, StoreStall how long one may move no byte.
	StoreRetry, StoreStall time.Duration
	// VolumeStall bounds how long one call to a volume may take.
	VolumeStall time.Duration
	// Env returns the variables of the environment that clouds set for pods that have a role of theirs.
	Env func(name string) string
	// CredentialsSecret and CredentialsKey name the credentials of locations that name none.
	CredentialsSecret, CredentialsKey string
	// Bounds of the state machine.
	Bounds state.Bounds
}

const (
	mebi = 1 << 20

	// minCacheTotal keeps a mistyped unit from leaving workers without caches.
	minCacheTotal = 64 * mebi

	defaultNamespace = "velero"
)

// Default returns the settings of a role where nothing is set. The function gives
// the variables of the environment: NODE_NAME and VELERO_NAMESPACE count.
func Default(role Role, env func(string) string) Config {
	c := Config{
		Role:           role,
		Namespace:      env("VELERO_NAMESPACE"),
		NodeName:       env("NODE_NAME"),
		PodsRoot:       "/host_pods",
		HostRoot:       "/host",
		CacheDir:       "/cache",
		MetadataCache:  256 * mebi,
		ContentCache:   256 * mebi,
		CacheTotal:     6144 * mebi,
		MetricsAddress: ":8085",
		HealthAddress:  ":8086",
		LogLevel:       "info",
		LeaderElection: role == RoleController,
		Heartbeat:      10 * time.Second,
		Drain:          20 * time.Second,
		Slots:          2,
		Reserved:       1,
		MemoryShare:    256 * mebi,
		Format:         engine.FormatFast,
		StoreRetry:     15 * time.Minute,
		StoreStall:     2 * time.Minute,
		VolumeStall:    5 * time.Minute,

		Env:               env,
		CredentialsSecret: "cloud-credentials",
		CredentialsKey:    "cloud",
		Bounds:            state.DefaultBounds(),
	}
	if c.Namespace == "" {
		c.Namespace = defaultNamespace
	}

	if role == RoleController {
		c.Reserved = 0
		c.CacheTotal = 3072 * mebi
	}

	return c
}

// AddFlags adds a flag for each setting that the role has.
func (c *Config) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Namespace, "velero-namespace", c.Namespace, "Velero's namespace; the default is $VELERO_NAMESPACE")
	f.StringVar(&c.CacheDir, "cache-dir", c.CacheDir, "folder for the caches of repositories")
	f.Var(&size{&c.MetadataCache}, "metadata-cache", "bound of a repository's metadata cache")
	f.Var(&size{&c.ContentCache}, "content-cache", "bound of a repository's content cache")
	f.Var(&size{&c.CacheTotal}, "cache-total", "bound of the caches of all repositories; those that were not used for longest are removed")
	f.StringVar(&c.MetricsAddress, "metrics-address", c.MetricsAddress, "address that metrics are served on; 0 turns them off")
	f.StringVar(&c.HealthAddress, "health-address", c.HealthAddress, "address that /healthz and /readyz are served on")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info or error")
	f.DurationVar(&c.Drain, "drain-timeout", c.Drain, "how long workers may take to end when the process is stopped")
	f.IntVar(&c.Slots, "slots", c.Slots, "how many workers run at a time")
	f.Var(&size{&c.MemoryLimit}, "memory-limit", "the container's memory limit; 0 finds it out")
	f.Var(&size{&c.MemoryShare}, "memory-share", "what of the memory limit is not for workers")
	f.BoolVar(&c.Strict, "strict", c.Strict, "refuse to run a worker where the kernel lacks a fence")
	f.Var(&size{&c.UploadLimit}, "upload-limit", "bytes per second to object stores, of all workers together; 0 is no bound")
	f.Var(&size{&c.DownloadLimit}, "download-limit", "bytes per second from object stores, of all workers together; 0 is no bound")
	f.DurationVar(&c.StoreRetry, "store-retry-timeout", c.StoreRetry, "how long a failing request to an object store is repeated")
	f.DurationVar(&c.StoreStall, "store-stall-timeout", c.StoreStall, "how long a request to an object store may move no byte")
	f.StringVar(&c.CredentialsSecret, "credentials-secret", c.CredentialsSecret, "Secret with the credentials of locations that name none; where it does not exist, or this is empty, the role of this pod counts")
	f.StringVar(&c.CredentialsKey, "credentials-key", c.CredentialsKey, "key in that Secret")
	f.DurationVar(&c.Bounds.NodeLost, "node-lost-timeout", c.Bounds.NodeLost, "how long a node's daemon may be silent; the same for the controller and the daemons")
	f.DurationVar(&c.Bounds.Gate, "gate-timeout", c.Bounds.Gate, "how long a scheduled pod may take to its gate, and a volume to be mounted")

	if c.Role == RoleNode {
		c.addNodeFlags(f)
	} else {
		c.addControllerFlags(f)
	}
}

func (c *Config) addNodeFlags(f *pflag.FlagSet) {
	f.StringVar(&c.NodeName, "node-name", c.NodeName, "the node this daemon is on; the default is $NODE_NAME")
	f.StringVar(&c.PodsRoot, "pods-root", c.PodsRoot, "where the kubelet's pods folder is mounted")
	f.StringVar(&c.HostRoot, "host-root", c.HostRoot, "where folders of the node are mounted, each at its own path, that hostPath volumes may be moved of")
	f.DurationVar(&c.Heartbeat, "heartbeat", c.Heartbeat, "how often the daemon's Lease is renewed")
	f.IntVar(&c.Reserved, "reserved-slots", c.Reserved, "how many more workers are planned for, for applications that are quiesced by hooks; their jobs wait for no slot")
	f.DurationVar(&c.VolumeStall, "volume-stall-timeout", c.VolumeStall, "how long a single call to a volume may take; twelve times that for a sync")
	f.DurationVar(&c.Bounds.Cancel, "cancel-timeout", c.Bounds.Cancel, "how long a cancelled worker may take to end")
	f.DurationVar(&c.Bounds.Freeze, "freeze-timeout", c.Bounds.Freeze, "how long an application may be quiesced for a job without a deadline of its own")
	f.DurationVar(&c.Bounds.MissingPod, "missing-job-timeout", c.Bounds.MissingPod, "how long a gate waits for a job that does not exist")
	f.Int32Var(&c.Bounds.Attempts, "attempts", c.Bounds.Attempts, "how often a worker is started for one job")
	f.DurationVar(&c.Bounds.RetryDelay, "retry-delay", c.Bounds.RetryDelay, "wait before a job's second attempt; it doubles with each")
}

func (c *Config) addControllerFlags(f *pflag.FlagSet) {
	f.BoolVar(&c.LeaderElection, "leader-election", c.LeaderElection, "let one of several controllers work")
	f.StringVar((*string)(&c.Format), "repository-format", string(c.Format), "format of new repositories: fast or fips")
	f.DurationVar(&c.Bounds.Unscheduled, "unscheduled-timeout", c.Bounds.Unscheduled, "how long a restored pod may wait for a node")
	f.DurationVar(&c.Bounds.Staging, "staging-timeout", c.Bounds.Staging, "how long a staging pod may take until it runs")
	f.DurationVar(&c.Bounds.Interruptions, "interruption-timeout", c.Bounds.Interruptions,
		"how long after its first start a job is taken up again whose staging pod had to make way or was taken away")
	f.IntVar(&c.Bounds.StagingPods, "staging-pods", c.Bounds.StagingPods, "how many staging pods may be there at a time")
	f.DurationVar(&c.Bounds.NoDaemon, "no-daemon-timeout", c.Bounds.NoDaemon, "how long a job waits on a node from which no daemon was ever heard")
	f.DurationVar(&c.Bounds.MissingPod, "missing-pod-timeout", c.Bounds.MissingPod, "how long the pod of a restore may be missing after Velero has made all objects")
	f.DurationVar(&c.Bounds.Abandon, "deletion-timeout", c.Bounds.Abandon, "how long the deletion of a snapshot is tried whose location or repository is not there")
	f.DurationVar(&c.Bounds.Retention, "job-retention", c.Bounds.Retention, "how long the object of a finished job is kept, if no pod's gate asks for it any more")
}

// Validate says what is wrong with the settings, all of it at once.
func (c *Config) Validate() error {
	var errs []error

	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}

	need(c.Role == RoleNode || c.Role == RoleController, "role %q is neither node nor controller", c.Role)
	need(c.Namespace != "", "--velero-namespace is empty")
	need(c.Role != RoleNode || c.NodeName != "", "--node-name is empty, and so is $NODE_NAME")
	need(c.Role != RoleNode || filepath.IsAbs(c.PodsRoot), "--pods-root %q is not an absolute path", c.PodsRoot)
	need(c.Role != RoleNode || filepath.IsAbs(c.HostRoot), "--host-root %q is not an absolute path", c.HostRoot)
	need(filepath.IsAbs(c.CacheDir), "--cache-dir %q is not an absolute path", c.CacheDir)
	need(c.CacheTotal >= minCacheTotal, "--cache-total is %d, expected at least %d", c.CacheTotal, int64(minCacheTotal))
	need(c.Slots > 0, "--slots is %d, expected at least 1", c.Slots)
	need(c.Reserved >= 0, "--reserved-slots is %d, expected at least 0", c.Reserved)
	need(c.Bounds.StagingPods > 0, "--staging-pods is %d, expected at least 1", c.Bounds.StagingPods)
	need(c.Bounds.Attempts > 0, "--attempts is %d, expected at least 1", c.Bounds.Attempts)
	need(c.Format == engine.FormatFast || c.Format == engine.FormatFIPS, "--repository-format %q is neither fast nor fips", c.Format)
	need(c.LogLevel == "debug" || c.LogLevel == "info" || c.LogLevel == "error", "--log-level %q is none of debug, info and error", c.LogLevel)
	need(2*c.Heartbeat < c.Bounds.NodeLost, "--heartbeat %s is not well below the time after which a node counts as lost (%s)", c.Heartbeat, c.Bounds.NodeLost)

	for name, n := range map[string]int64{
		"metadata-cache": c.MetadataCache, "content-cache": c.ContentCache, "memory-limit": c.MemoryLimit, "memory-share": c.MemoryShare,
		"upload-limit": c.UploadLimit, "download-limit": c.DownloadLimit,
	} {
		need(n >= 0, "--%s is %d, expected at least 0", name, n)
	}

	for name, d := range map[string]time.Duration{
		"heartbeat": c.Heartbeat, "drain-timeout": c.Drain, "gate-timeout": c.Bounds.Gate, "cancel-timeout": c.Bounds.Cancel,
		"freeze-timeout": c.Bounds.Freeze, "retry-delay": c.Bounds.RetryDelay, "unscheduled-timeout": c.Bounds.Unscheduled, "staging-timeout": c.Bounds.Staging,
		"node-lost-timeout": c.Bounds.NodeLost, "no-daemon-timeout": c.Bounds.NoDaemon, "missing-pod-timeout": c.Bounds.MissingPod,
		"job-retention": c.Bounds.Retention, "interruption-timeout": c.Bounds.Interruptions, "deletion-timeout": c.Bounds.Abandon, "store-retry-timeout": c.StoreRetry, "store-stall-timeout": c.StoreStall,
		"volume-stall-timeout": c.VolumeStall,
	} {
		need(d > 0, "--%s is %s, expected more than 0", name, d)
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("settings: %w", err)
	}

	return nil
}

// size is a flag of bytes, in the way of Kubernetes' quantities.
type size struct{ bytes *int64 }

// String returns the quantity.
func (s *size) String() string {
	if s.bytes == nil {
		return "0"
	}

	return resource.NewQuantity(*s.bytes, resource.BinarySI).String()
}

// Set reads a quantity.
func (s *size) Set(text string) error {
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return fmt.Errorf("%q is not a quantity such as 512Mi: %w", text, err)
	}

	*s.bytes = q.Value()

	return nil
}

// Type names the flag's type.
func (s *size) Type() string { return "quantity" }
