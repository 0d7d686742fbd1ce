// urpcdrive drives a sandtrail service with gVisor's own pkg/urpc, as gVisor's runsc drives a
// sandbox: one connection a call, descriptors donated on the request, Go's own encoding/json.
//
//	urpcdrive STATE_DIRECTORY ROOTFS
//
// It prints a line for each scenario and exits 1 if one of them went otherwise than it should.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/pkg/urpc"
)

// The arguments of 2022 (runsc/boot/controller.go), which importing that package would bring along
// with a whole kernel.

type createArgs struct {
	CID string
	urpc.FilePayload
}

type startArgs struct {
	Spec *specs.Spec
	Conf map[string]any
	CID  string
	urpc.FilePayload
}

type signalArgs struct {
	CID   string
	Signo int32
	PID   int32
	Mode  int
}

type waitPIDArgs struct {
	PID int32
	CID string
}

type execArgs struct {
	Filename         string   `json:"filename"`
	Argv             []string `json:"argv"`
	Envv             []string `json:"envv"`
	MountNamespace   *struct{}
	WorkingDirectory string `json:"wd"`
	KUID             uint32
	KGID             uint32
	ExtraKGIDs       []uint32
	Capabilities     *struct{}
	StdioIsPty       bool
	urpc.FilePayload
	ContainerID  string
	PIDNamespace *struct{}
	Limits       *struct{}
}

// What HEAD has more of.

type execArgsHead struct {
	execArgs
	GuestFDs []int
}

// What HEAD has more of.

type mountConf struct {
	Lower byte   `json:"lower"`
	Upper byte   `json:"upper"`
	Size  string `json:"size,omitempty"`
}

type startArgsHead struct {
	startArgs
	NumGoferFilestoreFDs        int
	IsDevIoFilePresent          bool
	GoferMountConfs             []mountConf
	IsRootfsUpperTarFilePresent bool
}

// sandboxManager.Create is sandtrail's own: the root container's start arguments and an id.
type createSandboxArgs struct {
	ID string
	startArgsHead
}

type driver struct {
	state  string
	rootfs *os.File
}

func (d *driver) node(method string, arg, result any) error {
	return call(filepath.Join(d.state, "control.sock"), "sandboxManager."+method, arg, result)
}

func (d *driver) sandbox(id, method string, arg, result any) error {
	socket := filepath.Join(d.state, "sandboxes", id, "control.sock")
	return call(socket, "containerManager."+method, arg, result)
}

func call(socket, method string, arg, result any) error {
	conn, err := unet.Connect(socket, false)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", socket, err)
	}
	client := urpc.NewClient(conn)
	defer client.Close()
	return client.Call(method, arg, result)
}

func shell(script string) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script},
			Env:  []string{"PATH=/bin", "SECRET=of go"},
			Cwd:  "/",
		},
		Root:  &specs.Root{Path: "rootfs", Readonly: true},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
	}
}

var nothing, _ = os.OpenFile(os.DevNull, os.O_RDWR, 0)

func (d *driver) arguments(cid, script string, stdout *os.File) startArgs {
	if stdout == nil {
		stdout = nothing
	}
	return startArgs{
		Spec:        shell(script),
		Conf:        map[string]any{"RootDir": "/var/run/runsc"},
		CID:         cid,
		FilePayload: urpc.FilePayload{Files: []*os.File{nothing, stdout, nothing, d.rootfs}},
	}
}

func (d *driver) createSandbox(id, script string) error {
	args := createSandboxArgs{ID: id, startArgsHead: startArgsHead{startArgs: d.arguments(id, script, nil)}}
	args.GoferMountConfs = []mountConf{{Lower: 1}}
	if err := d.node("Create", &args, nil); err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if err := d.sandbox(id, "StartRoot", &id, nil); err != nil {
		return fmt.Errorf("StartRoot: %w", err)
	}
	return nil
}

func (d *driver) create(id, cid string) error {
	if err := d.sandbox(id, "CreateSubcontainer", &createArgs{CID: cid}, nil); err != nil {
		return fmt.Errorf("CreateSubcontainer: %w", err)
	}
	return nil
}

func (d *driver) run(id, cid, script string) error {
	if err := d.create(id, cid); err != nil {
		return err
	}
	args := d.arguments(cid, script, nil)
	if err := d.sandbox(id, "StartSubcontainer", &args, nil); err != nil {
		return fmt.Errorf("StartSubcontainer: %w", err)
	}
	return nil
}

func (d *driver) wait(id, cid string, want uint32) error {
	var status uint32
	if err := d.sandbox(id, "Wait", &cid, &status); err != nil {
		return fmt.Errorf("Wait: %w", err)
	}
	if status != want {
		return fmt.Errorf("Wait(%s) = %#x, want %#x", cid, status, want)
	}
	return nil
}

func wantRefusal(err error, text string) error {
	var remote urpc.RemoteError
	if !errors.As(err, &remote) {
		return fmt.Errorf("got %v, want a refusal with %q", err, text)
	}
	if !strings.Contains(remote.Message, text) {
		return fmt.Errorf("refused with %q, want %q", remote.Message, text)
	}
	return nil
}

// readAll closes the write end and reads what containers wrote into the pipe.
func readAll(read, write *os.File) (string, error) {
	write.Close()
	text, err := io.ReadAll(read)
	read.Close()
	return string(text), err
}

func (d *driver) output(id, cid, script string, head bool) (string, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer write.Close()
	if err := d.create(id, cid); err != nil {
		return "", err
	}
	args := d.arguments(cid, script, write)
	if head {
		newer := startArgsHead{startArgs: args, GoferMountConfs: []mountConf{{Lower: 1, Upper: 1, Size: "16m"}}}
		newer.Spec.Root.Readonly = false
		err = d.sandbox(id, "StartSubcontainer", &newer, nil)
	} else {
		err = d.sandbox(id, "StartSubcontainer", &args, nil)
	}
	if err != nil {
		return "", fmt.Errorf("StartSubcontainer: %w", err)
	}
	return readAll(read, write)
}

type scenario struct {
	name string
	run  func(d *driver) error
}

const sandbox = "go-sandbox"

var scenarios = []scenario{
	{"a sandbox is created and its root started", func(d *driver) error {
		return d.createSandbox(sandbox, "sleep 600")
	}},
	{"a start in the shape of 2022: bytes and status", func(d *driver) error {
		text, err := d.output(sandbox, "old", "echo $SECRET; exit 3", false)
		if err != nil {
			return err
		}
		if text != "of go\n" {
			return fmt.Errorf("got %q", text)
		}
		return d.wait(sandbox, "old", 3<<8)
	}},
	{"a start in the shape of HEAD: an overlay in memory", func(d *driver) error {
		text, err := d.output(sandbox, "new", "echo hi > /bin/file; cat /bin/file", true)
		if err != nil {
			return err
		}
		if text != "hi\n" {
			return fmt.Errorf("got %q", text)
		}
		return d.wait(sandbox, "new", 0)
	}},
	{"a signal ends a container, and Wait answers again", func(d *driver) error {
		if err := d.run(sandbox, "killed", "sleep 600"); err != nil {
			return err
		}
		if err := d.sandbox(sandbox, "Signal", &signalArgs{CID: "killed", Signo: 9}, nil); err != nil {
			return err
		}
		if err := d.wait(sandbox, "killed", 9); err != nil {
			return err
		}
		return d.wait(sandbox, "killed", 9)
	}},
	{"refusals have gVisor's texts", func(d *driver) error {
		args := d.arguments("killed", "true", nil)
		err := wantRefusal(
			d.sandbox(sandbox, "StartSubcontainer", &args, nil), `container "killed" is already started`)
		if err != nil {
			return err
		}
		empty := d.arguments("", "true", nil)
		err = wantRefusal(
			d.sandbox(sandbox, "StartSubcontainer", &empty, nil), "start argument missing container ID")
		if err != nil {
			return err
		}
		err = wantRefusal(d.sandbox(sandbox, "NoSuchMethod", &struct{}{}, nil), "unknown method")
		if err != nil {
			return err
		}
		none := "nobody"
		return wantRefusal(d.sandbox(sandbox, "Wait", &none, new(uint32)), "nobody")
	}},
	{"exec: output, environment, working directory and status", func(d *driver) error {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		args := execArgs{
			Argv:             []string{"/bin/sh", "-c", "echo $WORD; pwd; exit 7"},
			Envv:             []string{"PATH=/bin", "WORD=exec"},
			WorkingDirectory: "/bin",
			ContainerID:      sandbox,
			FilePayload:      urpc.FilePayload{Files: []*os.File{nothing, write, nothing}},
		}
		var pid int32
		if err := d.sandbox(sandbox, "ExecuteAsync", &args, &pid); err != nil {
			return fmt.Errorf("ExecuteAsync: %w", err)
		}
		text, err := readAll(read, write)
		if err != nil || text != "exec\n/bin\n" {
			return fmt.Errorf("got %q, %v", text, err)
		}
		var status uint32
		if err := d.sandbox(sandbox, "WaitPID", &waitPIDArgs{PID: pid, CID: sandbox}, &status); err != nil {
			return fmt.Errorf("WaitPID: %w", err)
		}
		if status != 7<<8 {
			return fmt.Errorf("WaitPID(%d) = %#x", pid, status)
		}
		return nil
	}},
	{"exec: a code is no signal, and a signal is no code", func(d *driver) error {
		for script, want := range map[string]uint32{"exit 137": 137 << 8, "kill -9 $$": 9, "exit 255": 255 << 8} {
			args := execArgsHead{
				execArgs: execArgs{
					Argv:             []string{"/bin/sh", "-c", script},
					Envv:             []string{"PATH=/bin"},
					WorkingDirectory: "/",
					ContainerID:      sandbox,
					FilePayload:      urpc.FilePayload{Files: []*os.File{nothing, nothing}},
				},
				GuestFDs: []int{0, 2},
			}
			var pid int32
			if err := d.sandbox(sandbox, "ExecuteAsync", &args, &pid); err != nil {
				return fmt.Errorf("ExecuteAsync: %w", err)
			}
			var status uint32
			if err := d.sandbox(sandbox, "WaitPID", &waitPIDArgs{PID: pid, CID: sandbox}, &status); err != nil {
				return fmt.Errorf("WaitPID: %w", err)
			}
			if status != want {
				return fmt.Errorf("%q ended with %#x, want %#x", script, status, want)
			}
		}
		return nil
	}},
	{"all processes of a container are signalled, and its states are seen", func(d *driver) error {
		cid := "all"
		states := []int{1, 2, 3}
		steps := []func() error{
			func() error { return d.create(sandbox, cid) },
			func() error {
				args := d.arguments(cid, "sleep 600 & sleep 600", nil)
				return d.sandbox(sandbox, "StartSubcontainer", &args, nil)
			},
			func() error {
				args := signalArgs{CID: cid, Signo: 9, Mode: 1}
				if err := d.sandbox(sandbox, "Signal", &args, nil); err != nil {
					return err
				}
				return d.wait(sandbox, cid, 9)
			},
		}
		for number, step := range steps {
			if err := step(); err != nil {
				return err
			}
			var state int
			if err := d.sandbox(sandbox, "ContainerRuntimeState", &cid, &state); err != nil {
				return err
			}
			if state != states[number] {
				return fmt.Errorf("state %d, want %d", state, states[number])
			}
		}
		return d.sandbox(sandbox, "DestroySubcontainer", &cid, nil)
	}},
	{"processes are listed", func(d *driver) error {
		var rows []struct {
			UID  uint32 `json:"uid"`
			PID  int32  `json:"pid"`
			PPID int32  `json:"ppid"`
			TTY  string `json:"tty"`
			Cmd  string `json:"cmd"`
		}
		id := sandbox
		if err := d.sandbox(sandbox, "Processes", &id, &rows); err != nil {
			return err
		}
		for _, row := range rows {
			if row.Cmd == "sleep" || row.Cmd == "sh" {
				return nil
			}
		}
		return fmt.Errorf("no sleep among %+v", rows)
	}},
	{"pause and resume", func(d *driver) error {
		if err := d.sandbox(sandbox, "Pause", nil, nil); err != nil {
			return fmt.Errorf("Pause: %w", err)
		}
		if err := d.sandbox(sandbox, "Resume", nil, nil); err != nil {
			return fmt.Errorf("Resume: %w", err)
		}
		return nil
	}},
	{"nine are started and destroyed in a race: destroy never fails", func(d *driver) error {
		var group sync.WaitGroup
		failures := make(chan error, 9)
		for number := 0; number < 9; number++ {
			cid := fmt.Sprintf("race-%d", number)
			if err := d.create(sandbox, cid); err != nil {
				return err
			}
			group.Add(2)
			go func() {
				defer group.Done()
				args := d.arguments(cid, "sleep 600", nil)
				_ = d.sandbox(sandbox, "StartSubcontainer", &args, nil)
			}()
			go func() {
				defer group.Done()
				if err := d.sandbox(sandbox, "DestroySubcontainer", &cid, nil); err != nil {
					failures <- fmt.Errorf("DestroySubcontainer(%s): %w", cid, err)
				}
			}()
		}
		group.Wait()
		close(failures)
		return <-failures
	}},
	{"a file that the service returns nothing for stays the client's", func(d *driver) error {
		var status syscall.Stat_t
		return syscall.Fstat(int(d.rootfs.Fd()), &status)
	}},
	{"everything is destroyed", func(d *driver) error {
		for _, cid := range []string{"old", "new", "killed"} {
			if err := d.sandbox(sandbox, "DestroySubcontainer", &cid, nil); err != nil {
				return err
			}
		}
		if err := d.sandbox(sandbox, "Signal", &signalArgs{CID: sandbox, Signo: 9}, nil); err != nil {
			return err
		}
		if err := d.wait(sandbox, sandbox, 9); err != nil {
			return err
		}
		id := sandbox
		return d.node("Delete", &id, nil)
	}},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: urpcdrive STATE_DIRECTORY ROOTFS")
		os.Exit(2)
	}
	rootfs, err := os.Open(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	d := &driver{state: os.Args[1], rootfs: rootfs}
	failed := false
	for _, each := range scenarios {
		if err := each.run(d); err != nil {
			fmt.Printf("not ok - %s: %v\n", each.name, err)
			failed = true
		} else {
			fmt.Printf("ok - %s\n", each.name)
		}
	}
	if failed {
		os.Exit(1)
	}
}
