// gourpc measures gVisor's own urpc, in Go: a server of one trivial method, and a client of that
// server or of sandtrail's.
//
//	gourpc serve SOCKET
//	gourpc trivial SOCKET CID COUNT KEEP
//	gourpc rejected SOCKET CID COUNT ROOTFS
//
// The last two print the nanoseconds of each call, a line each. KEEP is "keep" for one connection,
// anything else for a connection a call, which is how runsc calls.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/pkg/urpc"
)

const method = "containerManager.ContainerRuntimeState"

// containerManager answers as a sandbox of one running container would.
type containerManager struct{}

// ContainerRuntimeState says "running".
func (*containerManager) ContainerRuntimeState(cid *string, state *uint32) error {
	*state = 2
	return nil
}

type startArgs struct {
	Spec *specs.Spec
	Conf map[string]any
	CID  string
	urpc.FilePayload
}

func serve(path string) error {
	listener, err := unet.BindAndListen(path, false)
	if err != nil {
		return err
	}
	server := urpc.NewServer()
	server.Register(&containerManager{})
	fmt.Println("ready")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		server.StartHandling(conn)
	}
}

func connect(path string) (*urpc.Client, error) {
	conn, err := unet.Connect(path, false)
	if err != nil {
		return nil, err
	}
	return urpc.NewClient(conn), nil
}

func timed(count int, call func() error) error {
	for range make([]struct{}, count) {
		began := time.Now()
		if err := call(); err != nil {
			return err
		}
		fmt.Println(time.Since(began).Nanoseconds())
	}
	return nil
}

func trivial(path, cid string, count int, keep bool) error {
	var state uint32
	if keep {
		client, err := connect(path)
		if err != nil {
			return err
		}
		defer client.Close()
		return timed(count, func() error { return client.Call(method, &cid, &state) })
	}
	return timed(count, func() error {
		client, err := connect(path)
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Call(method, &cid, &state)
	})
}

func rejected(path, cid string, count int, rootfs string) error {
	root, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	nothing, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	args := startArgs{
		Spec: &specs.Spec{
			Version: "1.0.2",
			Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"},
			Root:    &specs.Root{Path: "rootfs", Readonly: true},
			Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
		},
		Conf:        map[string]any{},
		CID:         cid,
		FilePayload: urpc.FilePayload{Files: []*os.File{nothing, nothing, nothing, root}},
	}
	return timed(count, func() error {
		client, err := connect(path)
		if err != nil {
			return err
		}
		defer client.Close()
		var refusal urpc.RemoteError
		if err := client.Call("containerManager.StartSubcontainer", &args, nil); !errors.As(err, &refusal) {
			return fmt.Errorf("no refusal: %v", err)
		}
		return nil
	})
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "serve" {
		return serve(args[1])
	}
	if len(args) != 5 {
		return errors.New("usage: see the comment on top")
	}
	count, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	if args[0] == "rejected" {
		return rejected(args[1], args[2], count, args[4])
	}
	return trivial(args[1], args[2], count, args[4] == "keep")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
