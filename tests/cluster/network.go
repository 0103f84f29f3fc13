package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// connectNode sets the node's address on a bridge, where other nodes can be plugged in. There is no
// default route: what leaves the cluster fails at once.
func (c Config) connectNode(ctx context.Context, n Node) error {
	commands := []string{
		"ip link set lo up",
		"ip link add nodes type bridge",
		// A bridge without a port has no carrier, and then its routes don't work.
		"ip link add nodes-port type veth peer name nodes-peer",
		"ip link set nodes-port master nodes",
		"ip link set nodes-port up",
		"ip link set nodes-peer up",
		fmt.Sprintf("ip addr add %s/%d dev nodes", n.Address, c.Network.PrefixLength),
		"ip link set nodes up",
		// Packets to a ClusterIP need a route before kube-proxy's rules rewrite them.
		fmt.Sprintf("ip route add %s dev nodes", c.Network.ServiceCIDR),
	}
	for _, line := range commands {
		words := strings.Fields(line)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("switch on forwarding: %w", err)
	}
	return nil
}

// linkNode plugs a node into the first one's bridge, and tells both where the other's pods are. The first
// node needs no link; a link that is there stays.
func (c Config) linkNode(ctx context.Context, n Node) error {
	first := c.Nodes[0]
	if n.Name == first.Name || os.Getenv(insideVariable) == c.Dir {
		return nil
	}
	pid, err := c.findInit(n.Name)
	if err != nil {
		return err
	}
	name := "to-" + n.Name
	if c.runOn(ctx, first, "ip link show "+name) != nil {
		if err := c.runOn(ctx, first, fmt.Sprintf("ip link add %s type veth peer name uplink netns %d", name, pid)); err != nil {
			return err
		}
	}
	type step struct {
		node Node
		line string
	}
	steps := []step{
		{first, "ip link set " + name + " master nodes up"},
		{n, "ip link set uplink master nodes up"},
	}
	for _, other := range c.Nodes {
		if other.Name == n.Name {
			continue
		}
		steps = append(steps,
			step{n, fmt.Sprintf("ip route replace %s via %s", other.PodCIDR, other.Address)},
			step{other, fmt.Sprintf("ip route replace %s via %s", n.PodCIDR, n.Address)})
	}
	for _, s := range steps {
		if err := c.runOn(ctx, s.node, s.line); err != nil {
			return err
		}
	}
	return nil
}

// linkBucket connects a cluster that uses another's object store with that one, node to node, and tells both where the
// other's nodes and pods are; a link that is there stays. It goes with either of the clusters.
func (c Config) linkBucket(ctx context.Context) error {
	if c.S3.Of == "" || os.Getenv(insideVariable) == c.Dir {
		return nil
	}
	other, err := Load(c.S3.Of)
	if err != nil {
		return err
	}
	host, guest := other.Nodes[0], c.Nodes[0]
	pid, err := other.findInit(host.Name)
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("%w: the object store is that of %s", ErrDown, other.Dir)
	}
	if c.runOn(ctx, guest, "ip link show bucket") != nil {
		// The end that an earlier cluster left goes when the kernel gets round to it. Mostly there is none.
		_ = other.runOn(ctx, host, "ip link del guest")
		if err := c.runOn(ctx, guest, fmt.Sprintf("ip link add bucket type veth peer name guest netns %d", pid)); err != nil {
			return err
		}
	}
	return errors.Join(
		c.runOn(ctx, guest, "ip link set bucket up"),
		other.runOn(ctx, host, "ip link set guest up"),
		// The sources are named, because the ends of the link have no addresses of their own.
		c.runOn(ctx, guest, fmt.Sprintf("ip route replace %s dev bucket src %s", host.Address, guest.Address)),
		other.runOn(ctx, host, fmt.Sprintf("ip route replace %s dev guest src %s", guest.Address, host.Address)),
		other.runOn(ctx, host, fmt.Sprintf("ip route replace %s via %s dev guest", c.Network.PodCIDR, guest.Address)),
	)
}

// runOn runs ip in a node's network. Only the network is entered: process IDs in the line are the machine's.
func (c Config) runOn(ctx context.Context, n Node, line string) error {
	pid, err := c.findInit(n.Name)
	if err != nil {
		return err
	}
	args := append([]string{"--net=/proc/" + strconv.Itoa(pid) + "/ns/net", "--"}, strings.Fields(line)...)
	if out, err := exec.CommandContext(ctx, "nsenter", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s on node %s: %w: %s", line, n.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
