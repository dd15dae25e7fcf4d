# Captures what only the running host can tell, in the order of volatility, and puts it where the URLs lead.
#
# For Windows PowerShell 4 and later. The settings are environment variables: SSM_Part (triage), SSM_Seconds,
# SSM_TriageUrl, SSM_SummaryUrl. Standard output has lines that begin with "cordon" and nothing else; the exit code is 0
# only where everything asked for has been uploaded. The host is not trusted: nothing that is read here is ever run,
# interpolated or printed, it only goes into files.
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

$fileLimit = 8388608        # bytes of one file
$totalLimit = 100663296     # bytes of all files before compression
$commandSeconds = 30        # seconds of one command
$clock = [Diagnostics.Stopwatch]::StartNew()
$began = [DateTime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ')
$script:seconds = 300
if ($env:SSM_Seconds -match '^[0-9]{1,5}$') { $script:seconds = [int]$env:SSM_Seconds }
$script:total = 0
$script:work = $null
$script:list = New-Object Collections.ArrayList

function Tell([string]$line) { [Console]::Out.WriteLine("cordon $line") }

function Get-SecondsLeft { return [int]($script:seconds - $clock.Elapsed.TotalSeconds) }

# Ends with a word that whoever asked knows the meaning of: "problem" is a failure, "unsupported" what cannot be had here.
function Stop-Capture([string]$kind, [string]$word) {
    Tell "$kind $word"
    Remove-Work
    exit 1
}

function Remove-Work {
    if ($script:work) { Remove-Item -LiteralPath $script:work -Recurse -Force -ErrorAction SilentlyContinue }
    $script:work = $null
}

# A folder that only the system and administrators can read.
function New-Work {
    $path = Join-Path ([IO.Path]::GetTempPath()) ('cordon.' + [Guid]::NewGuid().ToString('N'))
    [void][IO.Directory]::CreateDirectory($path)
    & icacls.exe $path /inheritance:r /grant:r '*S-1-5-18:(OI)(CI)F' '*S-1-5-32-544:(OI)(CI)F' | Out-Null
    $script:work = $path
}

function Get-Digest([Security.Cryptography.HashAlgorithm]$algorithm, [string]$path) {
    $stream = [IO.File]::OpenRead($path)
    try { return , $algorithm.ComputeHash($stream) } finally { $stream.Dispose(); $algorithm.Dispose() }
}

function Get-Sha256([string]$path) {
    $digest = Get-Digest ([Security.Cryptography.SHA256]::Create()) $path
    return ([BitConverter]::ToString($digest) -replace '-', '').ToLowerInvariant()
}

# As Content-MD5 has it: a bucket with Object Lock refuses an upload without.
function Get-Md5Base64([string]$path) {
    return [Convert]::ToBase64String((Get-Digest ([Security.Cryptography.MD5]::Create()) $path))
}

# One PUT of a file; the HTTP status, 0 where there was none. The URL is signed to write only what is not there.
function Send-Once([string]$path, [string]$url, [string]$md5) {
    $left = Get-SecondsLeft
    if ($left -le 0) { return 0 }
    try {
        $request = [Net.HttpWebRequest][Net.WebRequest]::Create($url)
        $request.Method = 'PUT'
        $request.Timeout = $left * 1000
        $request.AllowWriteStreamBuffering = $false
        $request.ServicePoint.Expect100Continue = $false
        $request.Headers.Add('Content-MD5', $md5)
        $request.Headers.Add('If-None-Match', '*')
        $body = [IO.File]::OpenRead($path)
        try {
            $request.ContentLength = $body.Length
            $out = $request.GetRequestStream()
            try { $body.CopyTo($out) } finally { $out.Dispose() }
        } finally { $body.Dispose() }
        $response = $request.GetResponse()
        try { return [int]$response.StatusCode } finally { $response.Dispose() }
    } catch {
        $answer = $_.Exception.GetBaseException()
        if ($answer -is [Net.WebException] -and $answer.Response) { return [int]$answer.Response.StatusCode }
        return 0
    }
}

# Uploads a file, three times at most. A second try that finds the object there has lost the answer of the first.
function Send-File([string]$path, [string]$url) {
    $md5 = Get-Md5Base64 $path
    foreach ($try in 1, 2, 3) {
        $code = Send-Once $path $url $md5
        if ($code -ge 200 -and $code -lt 300) { return $true }
        if ($code -eq 412 -and $try -gt 1) { return $true }
        if ($code -ge 400 -and $code -lt 500) { return $false }
        Start-Sleep -Seconds 2
    }
    return $false
}

# Runs one of our own blocks in a runspace of its own for a bounded time; its output becomes one file of the archive.
function Add-File([string]$name, [scriptblock]$block) {
    $left = [Math]::Min((Get-SecondsLeft), $commandSeconds)
    $path = Join-Path $script:files $name
    $status = 'ok'
    $at = $clock.Elapsed.TotalSeconds
    if ($left -le 0 -or $script:total -ge $totalLimit) {
        $status = 'skipped'
    } else {
        $shell = [PowerShell]::Create()
        [void]$shell.AddScript('$ErrorActionPreference = "Continue"; & {' + $block.ToString() + '} 2>&1 | Out-String -Width 4096 -Stream')
        $output = New-Object 'Management.Automation.PSDataCollection[psobject]'
        $nothing = New-Object 'Management.Automation.PSDataCollection[psobject]'
        $nothing.Complete()
        $waiting = $shell.BeginInvoke($nothing, $output)
        if (-not $waiting.AsyncWaitHandle.WaitOne($left * 1000)) {
            $status = 'timeout'
            [void]$shell.BeginStop($null, $null)
        } elseif ($shell.InvocationStateInfo.State -eq 'Failed') {
            $status = 'failed'
        }
        $writer = New-Object IO.StreamWriter($path, $false, (New-Object Text.UTF8Encoding($false)))
        try {
            foreach ($line in $output.ToArray()) {
                if ($writer.BaseStream.Length -ge $fileLimit) { $status = 'truncated'; break }
                $writer.WriteLine([string]$line)
                $writer.Flush()
            }
        } finally { $writer.Dispose() }
        if ($status -eq 'ok' -and (Get-Item -LiteralPath $path).Length -eq 0) { $status = 'missing' }
    }
    $size = 0
    $hash = ''
    if (Test-Path -LiteralPath $path) {
        $size = (Get-Item -LiteralPath $path).Length
        $hash = Get-Sha256 $path
        $script:total += $size
    }
    $exit = if ($status -eq 'ok') { 0 } else { 1 }
    $took = [int]($clock.Elapsed.TotalSeconds - $at)
    [void]$script:list.Add([ordered]@{ Name = $name; Status = $status; Exit = $exit; Seconds = $took; Size = $size; Sha256 = $hash })
}

function Invoke-Triage {
    try { Add-Type -AssemblyName System.IO.Compression.FileSystem } catch { Stop-Capture unsupported no-archiver }
    try { [Security.Cryptography.MD5]::Create().Dispose() } catch { Stop-Capture unsupported no-hash }
    try {
        New-Work
        $script:files = Join-Path $script:work 'files'
        [void][IO.Directory]::CreateDirectory($script:files)
    } catch { Stop-Capture problem no-folder }

    Add-File '01-date.txt' { [DateTime]::UtcNow.ToString('o'); Get-Date; [TimeZoneInfo]::Local | Format-List; w32tm.exe /query /status }
    Add-File '02-uptime.txt' { Get-CimInstance Win32_OperatingSystem | Format-List 'LastBootUpTime', 'LocalDateTime', 'Caption', 'Version', 'BuildNumber' }
    Add-File '03-users.txt' { quser.exe; Get-CimInstance Win32_LogonSession | Format-Table -AutoSize; Get-CimInstance Win32_LoggedOnUser | Format-Table -AutoSize; whoami.exe /all }
    Add-File '10-process-list.txt' { Get-CimInstance Win32_Process | Format-List 'ProcessId', 'ParentProcessId', 'SessionId', 'Name', 'ExecutablePath', 'CommandLine', 'CreationDate', 'HandleCount', 'WorkingSetSize' }
    Add-File '11-process-tree.txt' {
        $all = @(Get-CimInstance Win32_Process)
        $ids = @($all | ForEach-Object { $_.ProcessId })
        function Show-Branch($one, $depth) {
            (' ' * $depth * 2) + $one.ProcessId + ' ' + $one.Name
            if ($depth -lt 40) { $all | Where-Object { $_.ParentProcessId -eq $one.ProcessId -and $_.ProcessId -ne $one.ProcessId -and $_.CreationDate -ge $one.CreationDate } | ForEach-Object { Show-Branch $_ ($depth + 1) } }
        }
        $all | Where-Object { $ids -notcontains $_.ParentProcessId -or $_.ProcessId -eq $_.ParentProcessId } | ForEach-Object { Show-Branch $_ 0 }
    }
    Add-File '12-processes.txt' { Get-CimInstance Win32_Process | ForEach-Object { $owner = Invoke-CimMethod -InputObject $_ -MethodName GetOwner -ErrorAction SilentlyContinue; '{0} {1}\{2}' -f $_.ProcessId, $owner.Domain, $owner.User } }
    Add-File '13-open-files.txt' { openfiles.exe /query /v; Get-SmbOpenFile | Format-List }
    Add-File '14-executables.txt' { Get-CimInstance Win32_Process | Where-Object { $_.ExecutablePath } | Sort-Object ExecutablePath -Unique | ForEach-Object { Get-FileHash -LiteralPath $_.ExecutablePath -Algorithm SHA256; Get-AuthenticodeSignature -LiteralPath $_.ExecutablePath | Format-List 'Status', 'SignerCertificate' } | Format-List }
    Add-File '15-executable-mappings.txt' { tasklist.exe /m }
    Add-File '20-connections.txt' { Get-NetTCPConnection | Format-Table -AutoSize 'LocalAddress', 'LocalPort', 'RemoteAddress', 'RemotePort', 'State', 'OwningProcess', 'CreationTime'; netstat.exe -abno }
    Add-File '21-listeners.txt' { Get-NetTCPConnection -State Listen | Format-Table -AutoSize 'LocalAddress', 'LocalPort', 'OwningProcess'; Get-NetUDPEndpoint | Format-Table -AutoSize 'LocalAddress', 'LocalPort', 'OwningProcess' }
    Add-File '23-other-sockets.txt' { [IO.Directory]::GetFiles('\\.\pipe\') }
    Add-File '30-routes.txt' { Get-NetRoute | Format-Table -AutoSize; route.exe print }
    Add-File '31-neighbours.txt' { Get-NetNeighbor | Format-Table -AutoSize; arp.exe -a }
    Add-File '32-dns.txt' { Get-DnsClientServerAddress | Format-Table -AutoSize; Get-DnsClientCache | Format-Table -AutoSize; Get-Content -LiteralPath "$env:SystemRoot\System32\drivers\etc\hosts" }
    Add-File '33-interfaces.txt' { ipconfig.exe /all; Get-NetAdapter | Format-List }
    Add-File '34-firewall.txt' { netsh.exe advfirewall show allprofiles; Get-NetFirewallRule -Enabled True | Format-Table -AutoSize 'Name', 'Direction', 'Action', 'Profile'; netsh.exe interface portproxy show all }
    Add-File '40-kernel-modules.txt' { driverquery.exe /v /fo csv; Get-CimInstance Win32_SystemDriver | Where-Object { $_.State -eq 'Running' } | Format-List 'Name', 'PathName', 'StartMode' }
    Add-File '41-mounts.txt' { Get-CimInstance Win32_Volume | Format-List 'Name', 'DeviceID', 'FileSystem', 'Capacity', 'FreeSpace'; net.exe use; Get-SmbShare | Format-Table -AutoSize; Get-SmbMapping | Format-Table -AutoSize }
    Add-File '42-space.txt' { Get-CimInstance Win32_LogicalDisk | Format-Table -AutoSize; Get-CimInstance Win32_DiskDrive | Format-List; vssadmin.exe list shadows }
    Add-File '50-scheduled.txt' { schtasks.exe /query /v /fo list; Get-CimInstance -Namespace root/subscription __EventFilter | Format-List; Get-CimInstance -Namespace root/subscription __EventConsumer | Format-List; Get-CimInstance -Namespace root/subscription __FilterToConsumerBinding | Format-List }
    Add-File '51-services.txt' { Get-CimInstance Win32_Service | Format-List 'Name', 'DisplayName', 'State', 'StartMode', 'StartName', 'PathName', 'ProcessId'; Get-CimInstance Win32_StartupCommand | Format-List }
    Add-File '60-logins.txt' { Get-WinEvent -FilterHashtable @{ LogName = 'Security'; Id = 4624, 4625, 4634, 4647, 4648, 4672, 4720, 4732 } -MaxEvents 1000 | Format-List 'TimeCreated', 'Id', 'Message' }
    Add-File '61-login-logs.txt' { Get-WinEvent -LogName 'Microsoft-Windows-TerminalServices-LocalSessionManager/Operational' -MaxEvents 500 | Format-List 'TimeCreated', 'Id', 'Message' }
    Add-File '63-accounts.txt' { net.exe user; net.exe localgroup; net.exe localgroup administrators }
    Add-File '64-recent-logs.txt' { Get-WinEvent -LogName System -MaxEvents 500 | Format-List 'TimeCreated', 'Id', 'ProviderName', 'Message'; Get-WinEvent -LogName 'Microsoft-Windows-PowerShell/Operational' -MaxEvents 500 | Format-List 'TimeCreated', 'Id', 'Message' }
    Add-File '70-cloud-init.txt' { Get-ChildItem -Path "$env:ProgramData\Amazon" -Recurse -File -Include 'user-data*', 'UserScript*', '*.yml', '*.json' -ErrorAction SilentlyContinue | Select-Object -First 50 | ForEach-Object { '== ' + $_.FullName; Get-Content -LiteralPath $_.FullName -TotalCount 2000 } }
    Add-File '71-cloud-init-logs.txt' { Get-ChildItem -Path "$env:ProgramData\Amazon" -Recurse -File -Include '*.log' -ErrorAction SilentlyContinue | Select-Object -First 50 | ForEach-Object { '== ' + $_.FullName; Get-Content -LiteralPath $_.FullName -Tail 500 } }
    Add-File '80-containers.txt' { docker.exe ps -a --no-trunc; docker.exe images --no-trunc --digests; crictl.exe ps -a; ctr.exe --namespace k8s.io containers list }
    Add-File '90-memory.txt' { Get-CimInstance Win32_OperatingSystem | Format-List 'TotalVisibleMemorySize', 'FreePhysicalMemory', 'TotalVirtualMemorySize', 'FreeVirtualMemory'; Get-CimInstance Win32_PageFileUsage | Format-List; Get-CimInstance Win32_PhysicalMemory | Format-List 'Capacity' }

    $archive = Join-Path $script:work 'triage.zip'
    try { [IO.Compression.ZipFile]::CreateFromDirectory($script:files, $archive) } catch { Stop-Capture problem archive }
    $size = (Get-Item -LiteralPath $archive).Length
    $hash = Get-Sha256 $archive
    $identity = New-Object Security.Principal.WindowsPrincipal([Security.Principal.WindowsIdentity]::GetCurrent())
    $summary = [ordered]@{
        Format = 'cordon-capture/1'; Platform = 'Windows'; Began = $began; Ended = [DateTime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ')
        Root = $identity.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
        Archive = [ordered]@{ Name = 'triage.zip'; Size = $size; Sha256 = $hash }; Files = $script:list
    }
    $overview = Join-Path $script:work 'summary.json'
    [IO.File]::WriteAllText($overview, (ConvertTo-Json -InputObject $summary -Depth 5 -Compress), (New-Object Text.UTF8Encoding($false)))

    $uploaded = $true
    if (Send-File $archive $env:SSM_TriageUrl) { Tell "object triage.zip $hash $size" } else { $uploaded = $false }
    if (Send-File $overview $env:SSM_SummaryUrl) { Tell "object summary.json $(Get-Sha256 $overview) $((Get-Item -LiteralPath $overview).Length)" } else { $uploaded = $false }
    if (-not $uploaded) { Stop-Capture problem upload }
}

try {
    [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
    if ($env:SSM_Part -ne 'triage') { Stop-Capture problem settings }
    Invoke-Triage
    Remove-Work
    exit 0
} catch {
    [Console]::Error.WriteLine($_.Exception.GetType().FullName)
    Stop-Capture problem script
}
